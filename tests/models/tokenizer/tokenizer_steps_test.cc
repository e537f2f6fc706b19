// The steps around a model (normalizer, pre-tokenizer, decoder, flags of added tokens) against Hugging Face tokenizers:
// tests/golden/make_tokenizer_steps_golden.py.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "models/tokenizer/tokenizer.h"
#include "tests/models/tokenizer/vocabularies.h"

namespace trimtab {
namespace {

using nlohmann::json;

TEST(TokenizerStepsTest, EveryStepAsTheReference) {
  std::istringstream file(ReadTestFile("tests/golden/tokenizer_steps_golden.jsonl"));
  std::string line;
  std::getline(file, line);
  const auto texts = json::parse(line).get<std::vector<std::string>>();
  int cases = 0;
  while (std::getline(file, line)) {
    const json record = json::parse(line);
    json tokenizer_json =
        json::parse(ReadTestFile("tests/golden/data/unigram/" + record["base"].get<std::string>() + ".json"));
    tokenizer_json.merge_patch(record["patch"]);
    const std::string what = record["patch"].dump();
    const auto tokenizer = Tokenizer::FromHuggingFaceJson(tokenizer_json.dump());
    ASSERT_TRUE(tokenizer.ok()) << what << tokenizer.status();
    for (size_t i = 0; i < texts.size(); ++i) {
      const json& expected = record["cases"][i];
      if (expected.is_null()) continue;
      const std::vector<TokenId> ids = (*tokenizer)->Encode(texts[i], Tokenizer::SpecialTokens::kParse);
      EXPECT_EQ(ids, expected[0].get<std::vector<TokenId>>()) << what << "\n" << texts[i];
      const std::string decoded = expected[1].is_null() ? texts[i] : expected[1].get<std::string>();
      EXPECT_EQ((*tokenizer)->Decode(ids, false), decoded) << what;
      EXPECT_EQ((*tokenizer)->Decode(ids, true), expected[2].is_null() ? decoded : expected[2].get<std::string>())
          << what;
      EXPECT_EQ((*tokenizer)->EncodeWithRanges(texts[i], {}).ids, ids) << what;
      ++cases;
    }
  }
  EXPECT_GT(cases, 1000);
}

TEST(TokenizerStepsTest, PlainTextProducesNoControlTokenWhateverTheSteps) {
  std::istringstream file(ReadTestFile("tests/golden/tokenizer_steps_golden.jsonl"));
  std::string line;
  std::getline(file, line);
  const auto texts = json::parse(line).get<std::vector<std::string>>();
  while (std::getline(file, line)) {
    const json record = json::parse(line);
    json tokenizer_json =
        json::parse(ReadTestFile("tests/golden/data/unigram/" + record["base"].get<std::string>() + ".json"));
    tokenizer_json.merge_patch(record["patch"]);
    const auto tokenizer = *Tokenizer::FromHuggingFaceJson(tokenizer_json.dump());
    for (const std::string& text : texts) {
      for (const TokenId id : tokenizer->Encode(text, Tokenizer::SpecialTokens::kPlain)) {
        EXPECT_TRUE(!tokenizer->IsSpecial(id) || id == tokenizer->unk()) << record["patch"] << "\n" << text;
      }
      // What FindSpecialTexts does not find is no control token in a parsed text either.
      if (!tokenizer->FindSpecialTexts(text).empty()) continue;
      for (const TokenId id : tokenizer->Encode(text, Tokenizer::SpecialTokens::kParse)) {
        EXPECT_TRUE(!tokenizer->IsSpecial(id) || id == tokenizer->unk()) << record["patch"] << "\n" << text;
      }
    }
  }
}

}  // namespace
}  // namespace trimtab
