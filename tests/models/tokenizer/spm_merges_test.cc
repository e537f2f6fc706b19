#include "models/tokenizer/spm_merges.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_replace.h"
#include "models/tokenizer/token_decoder.h"
#include "tests/models/tokenizer/vocabularies.h"

namespace trimtab {
namespace {

TEST(SpmMergesTest, HighestScoreFirstThenTheLongerLeftPart) {
  const TokensByText tokens = {{"a", 0}, {"b", 1}, {"ab", 2}, {"aa", 3}, {"aaa", 4}, {"x", 5}};
  const std::vector<BpeMerge> merges = DeriveMerges(tokens, {0, 0, -1, -2, -2, 0});
  std::vector<std::vector<TokenId>> found;
  for (const BpeMerge& merge : merges) found.push_back({merge.left, merge.right, merge.merged});
  EXPECT_EQ(found, (std::vector<std::vector<TokenId>>{{0, 1, 2}, {3, 0, 4}, {0, 3, 4}, {0, 0, 3}}));
}

TEST(SpmMergesTest, CutsBetweenCharactersOnly) {
  const TokensByText tokens = {{"\xC3\xA9", 0}, {"\xC3", 1}, {"\xA9", 2}, {"\xC3\xA9\xC3\xA9", 3}};
  const std::vector<BpeMerge> merges = DeriveMerges(tokens, {0, 0, 0, 0});
  ASSERT_EQ(merges.size(), 1u);
  EXPECT_EQ(merges[0].merged, 3);
}

TEST(SpmMergesTest, GemmasScoresGiveTheMergesOfItsOwnFile) {
  const GgufVocabulary vocabulary = LoadTestVocabulary("gemma3").vocabulary;
  std::vector<std::string> texts;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const bool is_user_defined = vocabulary.token_types[id] == 4;
    texts.push_back(is_user_defined ? absl::StrReplaceAll(vocabulary.tokens[id], {{" ", "\u2581"}})
                                    : vocabulary.tokens[id]);
  }
  TokensByText tokens;
  std::vector<double> scores(vocabulary.scores.begin(), vocabulary.scores.end());
  for (size_t id = 0; id < texts.size(); ++id) {
    const int32_t type = vocabulary.token_types[id];
    if (type == 4) scores[id] = 0;
    if (type == 1 || type == 4) tokens[texts[id]] = static_cast<TokenId>(id);
  }
  const std::vector<BpeMerge> merges = DeriveMerges(tokens, scores);
  ASSERT_EQ(merges.size(), vocabulary.merges.size());
  size_t different = 0;
  for (size_t i = 0; i < merges.size(); ++i) {
    different += texts[merges[i].left] + " " + texts[merges[i].right] != vocabulary.merges[i];
  }
  EXPECT_EQ(different, 0u);
}

}  // namespace
}  // namespace trimtab
