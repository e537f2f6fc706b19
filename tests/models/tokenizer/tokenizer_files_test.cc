// What tokenizers take from their files, and which files they refuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "models/tokenizer/tokenizer.h"
#include "tests/models/tokenizer/small_tokenizer.h"
#include "tests/models/tokenizer/vocabularies.h"

namespace trimtab {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr auto kParse = Tokenizer::SpecialTokens::kParse;

TEST(TokenizerTest, SpecialIdsFromTheFilesBesideIt) {
  json tokenizer = SmallJson();
  tokenizer["added_tokens"] = {Added(9, "<bos>"), Added(10, "<eos>"), Added(11, "<|im_end|>"), Added(12, "<pad>")};
  tokenizer["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "<bos>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"special_tokens", {{"<bos>", {{"id", "<bos>"}, {"ids", {9}}, {"tokens", {"<bos>"}}}}}}};
  const json config = {{"eos_token", {{"content", "<eos>"}}}, {"pad_token", "<pad>"}, {"unk_token", nullptr}};
  const auto built = Build(tokenizer, config, {{"eos_token_id", {10, 3}}});
  EXPECT_EQ(built->bos(), 9);
  EXPECT_EQ(built->eos(), 10);
  EXPECT_EQ(built->pad(), 12);
  EXPECT_EQ(built->unk(), std::nullopt);
  EXPECT_TRUE(built->add_bos());
  EXPECT_THAT(built->end_of_generation(), ElementsAre(3, 10, 11));
  EXPECT_EQ(built->prompt_prefix(), std::vector<TokenId>{9});
  EXPECT_FALSE(Build(tokenizer, {{"add_bos_token", false}})->add_bos());
  json longer = tokenizer;  // two tokens before a text, one after it: the last would end a prompt
  longer["post_processor"]["special_tokens"]["<bos>"]["ids"] = {9, 12};
  longer["post_processor"]["single"].push_back({{"SpecialToken", {{"id", "<eos>"}, {"type_id", 0}}}});
  EXPECT_EQ(Build(longer)->prompt_prefix(), (std::vector<TokenId>{9, 12}));
  ExpectInvalid(BuildError(tokenizer, {{"eos_token", "<none>"}}));
}

TEST(TokenizerTest, SpecialIdsFromGguf) {
  const auto smollm2 = TestTokenizer("smollm2");
  EXPECT_EQ(smollm2->bos(), 1);
  EXPECT_EQ(smollm2->eos(), 2);
  EXPECT_EQ(smollm2->pad(), 2);
  EXPECT_EQ(smollm2->unk(), 0);
  EXPECT_FALSE(smollm2->add_bos());
  EXPECT_THAT(smollm2->end_of_generation(), ElementsAre(0, 2));
  EXPECT_EQ(smollm2->vocab_size(), 49152);
  EXPECT_TRUE(TestTokenizer("llama-bpe")->add_bos());
  EXPECT_THAT(TestTokenizer("llama-bpe")->end_of_generation(), ElementsAre(128001, 128009));
}

TEST(TokenizerTest, EachFamilysAnswersEnd) {
  const auto ends = [](const char* name) {
    std::vector<std::string> texts;
    const auto tokenizer = TestTokenizer(name);
    for (const TokenId id : tokenizer->end_of_generation()) texts.push_back(tokenizer->TokenBytes(id));
    return texts;
  };
  EXPECT_THAT(ends("gpt-2"), ElementsAre("<|endoftext|>"));
  EXPECT_THAT(ends("qwen2"), ElementsAre("<|endoftext|>", "<|im_end|>"));
  EXPECT_THAT(ends("gemma3"), ElementsAre("<eos>", "<end_of_turn>"));  // not its markup "</s>"
  EXPECT_THAT(ends("llama-spm"), ElementsAre("</s>"));
  // Tokens that the file names.
  GgufVocabulary vocabulary = LoadTestVocabulary("gpt-2").vocabulary;
  vocabulary.end_of_generation = {5, 3};
  EXPECT_THAT((*Tokenizer::FromGguf(vocabulary))->end_of_generation(), ElementsAre(3, 5, 50256));
  vocabulary.end_of_generation = {50257};
  ExpectInvalid(Tokenizer::FromGguf(vocabulary).status());
}

TEST(TokenizerTest, UnsupportedKindsAreNamed) {
  const auto expect = [](const char* pointer, json value, const char* name) {
    json tokenizer = SmallJson();
    tokenizer[json::json_pointer(pointer)] = std::move(value);
    const absl::Status status = BuildError(tokenizer);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  };
  expect("/model/type", "WordPiece", "WordPiece");
  expect("/model/type", "Unigram", "Unigram");  // after ByteLevel
  expect("/model/byte_fallback", true, "byte_fallback");
  expect("/model/end_of_word_suffix", "</w>", "end_of_word_suffix");
  expect("/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", "AA=="}}, "charsmap");
  expect("/normalizer", {{"type", "BertNormalizer"}}, "BertNormalizer");
  expect("/pre_tokenizer", {{"type", "UnicodeScripts"}}, "UnicodeScripts");
  expect("/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "\u2581"}}, "decoder");  // ByteLevel after it
  expect("/decoder", {{"type", "WordPiece"}}, "WordPiece");
  expect("/decoder", nullptr, "decoder");
  expect("/post_processor", {{"type", "BertProcessing"}}, "BertProcessing");

  GgufVocabulary vocabulary{.model = "t5", .pre = "default"};
  const absl::Status unknown_model = Tokenizer::FromGguf(vocabulary).status();
  EXPECT_EQ(unknown_model.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(unknown_model.message()), HasSubstr("t5"));
  vocabulary = {.model = "gpt2", .pre = "tekken"};
  const absl::Status unknown_pre = Tokenizer::FromGguf(vocabulary).status();
  EXPECT_EQ(unknown_pre.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(unknown_pre.message()), HasSubstr("tekken"));
  EXPECT_THAT(std::string(unknown_pre.message()), HasSubstr("smollm"));
}

TEST(TokenizerTest, BrokenTokenizerJson) {
  ExpectInvalid(Tokenizer::FromHuggingFaceJson("").status());
  ExpectInvalid(Tokenizer::FromHuggingFaceJson("{").status());
  ExpectInvalid(Tokenizer::FromHuggingFaceJson("[1]").status());
  ExpectInvalid(Tokenizer::FromHuggingFaceJson(std::string(1 << 20, '[')).status());
  ExpectInvalid(BuildError(json::object()));
  const auto with = [](const char* pointer, json value) {
    json tokenizer = SmallJson();
    tokenizer[json::json_pointer(pointer)] = std::move(value);
    return tokenizer;
  };
  ExpectInvalid(BuildError(with("/model", 3)));
  ExpectInvalid(BuildError(with("/model/type", 3)));
  ExpectInvalid(BuildError(with("/model/vocab/a", "0")));
  ExpectInvalid(BuildError(with("/model/vocab/a", -1)));
  ExpectInvalid(BuildError(with("/model/vocab/a", 1)));           // taken by b
  ExpectInvalid(BuildError(with("/model/vocab/a", 2000000000)));  // beyond the limit
  ExpectInvalid(BuildError(with("/model/vocab/a", 5000000000)));
  ExpectInvalid(BuildError(with("/model/merges/0", "a")));
  ExpectInvalid(BuildError(with("/model/merges/0", "a b c")));
  ExpectInvalid(BuildError(with("/model/merges/0", "a x")));  // no such token
  ExpectInvalid(BuildError(with("/model/merges/0", "a c")));  // no token "ac"
  ExpectInvalid(BuildError(with("/model/merges/0", 7)));
  ExpectInvalid(BuildError(with("/model/unk_token", "none")));
  ExpectInvalid(BuildError(with("/added_tokens/0", Added(3, "<x>"))));  // the id of d
  ExpectInvalid(BuildError(with("/added_tokens/0", Added(-3, "<x>"))));
  ExpectInvalid(BuildError(with("/added_tokens/0", Added(9, std::string(5000, 'x').c_str()))));
  ExpectInvalid(BuildError(with("/added_tokens/0", "x")));
  json nested = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  for (int i = 0; i < 100; ++i) nested = {{"type", "Sequence"}, {"pretokenizers", {nested}}};
  EXPECT_EQ(BuildError(with("/pre_tokenizer", nested)).code(), absl::StatusCode::kUnimplemented);
  const auto regex = [&](const std::string& pattern) {
    return with("/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}});
  };
  ExpectInvalid(BuildError(regex("(")));
  ExpectInvalid(BuildError(regex(std::string(20000, 'a'))));
  ExpectInvalid(BuildError(regex(std::string(5000, '(') + std::string(5000, ')'))));
}

TEST(TokenizerTest, BrokenGgufVocabulary) {
  const auto build = [](GgufVocabulary vocabulary) {
    vocabulary.model = "gpt2";
    vocabulary.pre = "gpt-2";
    return Tokenizer::FromGguf(std::move(vocabulary)).status();
  };
  EXPECT_TRUE(build({.tokens = {"a", "b", "ab"}, .merges = {"a b"}}).ok());
  ExpectInvalid(build({.tokens = {"a", "b"}, .token_types = {1}}));
  ExpectInvalid(build({.tokens = {"a", "b"}, .merges = {"a b"}}));
  ExpectInvalid(build({.tokens = {"a", "b", "ab"}, .merges = {"ab"}}));
  ExpectInvalid(build({.tokens = {"a", "b", "ab"}, .merges = {""}}));
  ExpectInvalid(build({.tokens = {"a", "b"}, .eos = 2}));
  ExpectInvalid(build({.tokens = {"a", "b"}, .bos = -1}));
  ExpectInvalid(build({.tokens = std::vector<std::string>((1 << 20) + 1, "a")}));
  const auto spm = [](std::vector<float> scores) {
    return Tokenizer::FromGguf({.model = "llama", .tokens = {"a", "b", "ab"}, .scores = std::move(scores)}).status();
  };
  EXPECT_TRUE(spm({0, 0, -1}).ok());
  ExpectInvalid(spm({}));
  ExpectInvalid(Tokenizer::FromGguf({.model = "llama", .tokens = {std::string(600, 'a')}, .scores = {0}}).status());
  ExpectInvalid(spm({0, 0}));
  ExpectInvalid(spm({0, 0, 0, 0}));
  ExpectInvalid(spm({0, 0, std::numeric_limits<float>::quiet_NaN()}));
}

}  // namespace
}  // namespace trimtab
