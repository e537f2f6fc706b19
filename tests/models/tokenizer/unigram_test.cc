#include "models/tokenizer/unigram.h"

#include <gtest/gtest.h>

#include <string>

namespace trimtab {
namespace {

// Letters, "abc" cheaper than its parts, and "bc" cheaper still with "a" before it.
Unigram Make(UnigramOptions options) {
  return Unigram({{"a", 1}, {"b", 2}, {"c", 3}, {"abc", 4}, {"bc", 5}, {"\u65e5", 6}},
                 {0, -2, -2, -2, -3.5, -1, -2, -9, -9, -9}, options);
}

std::vector<TokenId> Ids(const Unigram& model, std::string_view piece) {
  std::vector<PieceToken> tokens;
  model.Encode(piece, tokens);
  std::vector<TokenId> ids;
  for (const PieceToken& token : tokens) ids.push_back(token.id);
  return ids;
}

TEST(UnigramTest, TheGreatestTotalScoreWins) {
  const Unigram model = Make({.unknown = 0});
  EXPECT_EQ(Ids(model, "abc"), (std::vector<TokenId>{1, 5}));
  EXPECT_EQ(Ids(model, "ab"), (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(Ids(model, ""), std::vector<TokenId>());
  EXPECT_EQ(model.Find("bc"), 5);
  EXPECT_EQ(model.Find("x"), std::nullopt);
}

TEST(UnigramTest, OneUnknownTokenForARun) {
  std::vector<PieceToken> tokens;
  Make({.unknown = 0}).Encode("ax\u00e9zb\u65e5", tokens);
  ASSERT_EQ(tokens.size(), 4u);
  EXPECT_EQ(tokens[1].id, 0);
  EXPECT_EQ(tokens[1].range, (TextRange{1, 5}));
  EXPECT_EQ(tokens[3].range, (TextRange{6, 9}));
  EXPECT_EQ(Ids(Make({}), "axb"), (std::vector<TokenId>{1, 2}));  // dropped where there is no unknown token
}

TEST(UnigramTest, ByteFallbackOnlyForWholeRuns) {
  ByteTokens bytes = kNoByteTokens;
  bytes[0xC3] = 7;
  bytes[0xA9] = 8;
  const Unigram model = Make({.byte_fallback = bytes, .unknown = 0});
  EXPECT_EQ(Ids(model, "a\u00e9"), (std::vector<TokenId>{1, 7, 8}));
  EXPECT_EQ(Ids(model, "a\u00e9x"), (std::vector<TokenId>{1, 0}));  // no token for the byte "x"
}

TEST(UnigramTest, LongPiecesTakeLinearWork) {
  EXPECT_EQ(Ids(Make({.unknown = 0}), std::string(1'000'000, 'a')).size(), 1'000'000u);
}

}  // namespace
}  // namespace trimtab
