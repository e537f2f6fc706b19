// Texts to tokens and back.
#include "models/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/models/tokenizer/small_tokenizer.h"
#include "tests/models/tokenizer/vocabularies.h"

namespace trimtab {
namespace {

using nlohmann::json;
using testing::ElementsAre;

constexpr auto kParse = Tokenizer::SpecialTokens::kParse;
constexpr auto kPlain = Tokenizer::SpecialTokens::kPlain;

TEST(TokenizerTest, MergesByRankAndSplitsByPattern) {
  const auto tokenizer = Build(SmallJson());
  EXPECT_THAT(tokenizer->Encode("abc ab  ab", kParse), ElementsAre(7, 2, 8, 6, 8));
  EXPECT_EQ(tokenizer->Decode({7, 2, 8, 6, 8}, false), "abc ab  ab");
  EXPECT_EQ(tokenizer->vocab_size(), 9);
  EXPECT_TRUE(tokenizer->Encode("", kParse).empty());
}

TEST(TokenizerTest, BytesOutsideTheVocabularyAreDroppedOrUnknown) {
  EXPECT_THAT(Build(SmallJson())->Encode("axb", kParse), ElementsAre(7));
  json with_unknown = SmallJson();
  with_unknown["model"]["unk_token"] = "f";
  EXPECT_THAT(Build(with_unknown)->Encode("axyb", kParse), ElementsAre(0, 5, 5, 1));
  with_unknown["model"]["fuse_unk"] = true;
  EXPECT_THAT(Build(with_unknown)->Encode("axyb", kParse), ElementsAre(0, 5, 1));
  EXPECT_EQ(Build(with_unknown)->unk(), 5);
}

TEST(TokenizerTest, BrokenUtf8IsReplacedByMaximalParts) {
  const auto tokenizer = TestTokenizer("smollm2");
  EXPECT_EQ(tokenizer->Encode("a\xF0\x9F\x98z\xFF\xFE", kParse),
            tokenizer->Encode("a\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD", kParse));
}

TEST(TokenizerTest, PlainTextProducesNoControlToken) {
  for (const char* name : {"smollm2", "llama-bpe", "qwen2", "gpt-2"}) {
    const auto tokenizer = TestTokenizer(name);
    std::string text;
    for (TokenId id = 0; id < tokenizer->vocab_size(); ++id) {
      if (!tokenizer->IsSpecial(id)) continue;
      const std::string literal = tokenizer->TokenBytes(id);
      EXPECT_THAT(tokenizer->Encode(literal, kParse), ElementsAre(id));
      text += literal + (id % 2 ? " x" : "");
    }
    const std::vector<TokenId> ids = tokenizer->Encode(text, kPlain);
    for (const TokenId id : ids) EXPECT_FALSE(tokenizer->IsSpecial(id)) << id;
    EXPECT_EQ(tokenizer->Decode(ids, true), text);
    EXPECT_EQ(tokenizer->Encode("no control tokens here", kPlain), tokenizer->Encode("no control tokens here", kParse));
  }
}

TEST(TokenizerTest, MergesAndWholePiecesNeverYieldAControlToken) {
  json tokenizer = SmallJson();
  tokenizer["added_tokens"] = {Added(7, "ab")};
  EXPECT_THAT(Build(tokenizer)->Encode("ab", kParse), ElementsAre(7));
  EXPECT_THAT(Build(tokenizer)->Encode("ab", kPlain), ElementsAre(0, 1));
  tokenizer["model"]["ignore_merges"] = true;
  EXPECT_THAT(Build(tokenizer)->Encode("ab", kPlain), ElementsAre(0, 1));
}

TEST(TokenizerTest, IgnoreMergesTakesWholePieces) {
  json tokenizer = SmallJson();
  tokenizer["model"]["vocab"]["cab"] = 9;
  EXPECT_THAT(Build(tokenizer)->Encode("cab", kParse), ElementsAre(2, 7));
  tokenizer["model"]["ignore_merges"] = true;
  EXPECT_THAT(Build(tokenizer)->Encode("cab", kParse), ElementsAre(9));
}

TEST(TokenizerTest, PlainRangesKeepLiteralsOutAndStayOneText) {
  const auto tokenizer = TestTokenizer("smollm2");
  const std::string text = "<|im_start|>user\n<|im_end|> hi<|im_end|>";
  // The second literal is a user's: it is text, the others are not.
  const TextRange plain{17, 30};
  const TokenizedText encoded = tokenizer->EncodeWithRanges(text, absl::MakeConstSpan(&plain, 1));
  EXPECT_EQ(encoded.ids.front(), *tokenizer->Find("<|im_start|>"));
  EXPECT_EQ(encoded.ids.back(), *tokenizer->Find("<|im_end|>"));
  const std::vector<TokenId> middle(encoded.ids.begin() + 1, encoded.ids.end() - 1);
  EXPECT_EQ(middle, tokenizer->Encode("user\n<|im_end|> hi", kPlain));
  // Touching one byte of a range is enough; a literal made of both sides is text.
  const TextRange end{text.size() - 1, text.size()};
  EXPECT_FALSE(tokenizer->IsSpecial(tokenizer->EncodeWithRanges(text, absl::MakeConstSpan(&end, 1)).ids.back()));
}

TEST(TokenizerTest, RangesReferToTheTextBeforeNormalisation) {
  const auto tokenizer = TestTokenizer("qwen2");
  const std::string text =
      "caf"
      "e\xCC\x81 ok";  // e and a combining acute
  const TokenizedText encoded = tokenizer->EncodeWithRanges(text, {});
  EXPECT_EQ(encoded.ids, tokenizer->Encode("caf\xC3\xA9 ok", kParse));
  EXPECT_EQ(encoded.ranges.front().begin, 0u);
  EXPECT_EQ(encoded.ranges.back(), (TextRange{6, 9}));
}

TEST(TokenizerTest, AddedTokenFlags) {
  // What Hugging Face tokenizers 0.22 gives for the same file and texts.
  json tokenizer = SmallJson();
  json left = Added(9, "<l>"), right = Added(10, "<r>"), word = Added(11, "cd"), plain = Added(12, "<p>", false);
  left["lstrip"] = true;
  right["rstrip"] = true;
  word["single_word"] = true;
  tokenizer["added_tokens"] = {left, right, word, plain};
  const auto built = Build(tokenizer);
  EXPECT_THAT(built->Encode("a  <l> b", kParse), ElementsAre(0, 9, 6, 1));
  EXPECT_THAT(built->Encode("a <r> \n b", kParse), ElementsAre(0, 6, 10, 1));
  EXPECT_THAT(built->Encode("cd acd cde cd", kParse), ElementsAre(11, 6, 0, 2, 3, 6, 2, 3, 4, 6, 11));
  EXPECT_THAT(built->Encode("a<p><l>", kPlain), ElementsAre(0, 12));
  // White space that one token took is not the next one's (the reference stops with a panic).
  EXPECT_THAT(built->Encode("<r>  <l>b", kParse), ElementsAre(10, 9, 1));
  EXPECT_TRUE(built->IsSpecial(9));
  EXPECT_FALSE(built->IsSpecial(12));
  EXPECT_EQ(built->Decode({9, 0, 12}, true), "a<p>");
}

TEST(TokenizerTest, NormalizedAddedTokensAreFoundAfterNormalisation) {
  json tokenizer = SmallJson();
  tokenizer["normalizer"] = {{"type", "NFC"}};
  json added = Added(9, "\xC3\xA9", false);
  added["normalized"] = true;
  tokenizer["added_tokens"] = {added, Added(10, "e\xCC\x80", false)};
  const auto built = Build(tokenizer);
  EXPECT_THAT(built->Encode("ae\xCC\x81"
                            "b",
                            kParse),
              ElementsAre(0, 9, 1));
  EXPECT_THAT(built->Encode("ae\xCC\x80"
                            "b",
                            kParse),
              ElementsAre(0, 10, 1));
}

TEST(TokenizerTest, TheLongestAddedTokenWins) {
  json tokenizer = SmallJson();
  tokenizer["added_tokens"] = {Added(9, "<x"), Added(10, "<x>"), Added(11, "x>y", false)};
  const auto built = Build(tokenizer);
  EXPECT_THAT(built->Encode("<x>y<xa", kParse), ElementsAre(10, 9, 0));
  EXPECT_THAT(built->FindSpecialTexts("a<x><xa"), ElementsAre(TextRange{1, 4}, TextRange{4, 6}));
}

TEST(TokenizerTest, SentencePieceFromGguf) {
  const auto llama = TestTokenizer("llama-spm"), gemma = TestTokenizer("gemma3");
  EXPECT_EQ(llama->prompt_prefix(), std::vector<TokenId>{1});
  EXPECT_EQ(gemma->prompt_prefix(), std::vector<TokenId>{2});
  // Llama 2 puts a space before a text, and its decoder takes it away; Gemma does neither.
  EXPECT_EQ(llama->TokenBytes(llama->Encode("Hello", kParse)[0]), " Hello");
  EXPECT_EQ(llama->Decode(llama->Encode("Hello", kParse), false), "Hello");
  EXPECT_EQ(gemma->TokenBytes(gemma->Encode("Hello", kParse)[0]), "Hello");
  EXPECT_EQ(gemma->Find(" the"), gemma->Encode(" the", kParse)[0]);
  // What conversions call user-defined: turn marks are control tokens, markup is text.
  EXPECT_TRUE(gemma->IsSpecial(*gemma->Find("<start_of_image>")));
  EXPECT_FALSE(gemma->IsSpecial(*gemma->Find("<table>")));
  EXPECT_THAT(gemma->Encode("<table>\n\n", kPlain), ElementsAre(168, 108));
  // The prompt of the golden continuation of Gemma-3-270M.
  EXPECT_THAT(gemma->Encode("The capital of France is", kParse), ElementsAre(818, 5279, 529, 7001, 563));
}

TEST(TokenizerTest, BrokenByteFallbackIsOneMarkPerByte) {
  const auto gemma = TestTokenizer("gemma3");
  const std::string mark = "\xEF\xBF\xBD";
  const TokenId first = *gemma->Find("\xE6"), second = *gemma->Find("\x97"), third = *gemma->Find("\xA5");
  EXPECT_EQ(gemma->Decode({first, second, third}, false), "\u65e5");
  EXPECT_EQ(gemma->Decode({first, second}, false), mark + mark);
  EXPECT_EQ(gemma->Decode({first, second, *gemma->Find("a")}, false), mark + mark + "a");
  EXPECT_EQ(gemma->Decode({first, second, third, first}, false), "\u65e5" + mark);
}

TEST(TokenizerTest, PaddingRowsAreNoTokens) {
  const auto tokenizer = TestTokenizer("qwen2");
  EXPECT_EQ(tokenizer->vocab_size(), 151936);
  EXPECT_EQ(tokenizer->Encode("[PAD151646]", kParse), tokenizer->Encode("[PAD151646]", kPlain));
  EXPECT_GT(tokenizer->Encode("[PAD151646]", kParse).size(), 1u);
  EXPECT_EQ(tokenizer->TokenBytes(151646), "");
}

TEST(TokenizerTest, IdsOutOfRangeAreSkipped) {
  const auto tokenizer = TestTokenizer("smollm2");
  EXPECT_EQ(tokenizer->Decode({-1, 49152, 1 << 30}, false), "");
  EXPECT_EQ(tokenizer->TokenBytes(-1), "");
  EXPECT_EQ(tokenizer->TokenBytes(49152), "");
  EXPECT_FALSE(tokenizer->IsSpecial(-1));
  EXPECT_EQ(tokenizer->Find("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer->TokenBytes(*tokenizer->Find(" the")), " the");
}

TEST(TokenizerTest, PreTokenizerKinds) {
  const auto split = [](const char* behavior, bool invert = false) {
    json tokenizer = SmallJson();
    tokenizer["model"]["ignore_merges"] = true;
    tokenizer["model"]["merges"] = json::array();
    for (const char* piece : {"ca", "ac", "ccc", "acc", "cca", "aca"}) {
      const size_t id = tokenizer["model"]["vocab"].size();
      tokenizer["model"]["vocab"][piece] = id;
    }
    tokenizer["pre_tokenizer"] = {
        {"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"}, {"pattern", {{"String", "c"}}}, {"behavior", behavior}, {"invert", invert}},
          {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
    const auto built = Build(tokenizer);
    std::vector<std::string> pieces;
    for (const TokenId id : built->Encode("accca", kParse)) pieces.push_back(built->TokenBytes(id));
    return pieces;
  };
  EXPECT_THAT(split("Isolated"), ElementsAre("a", "c", "c", "c", "a"));
  EXPECT_THAT(split("Removed"), ElementsAre("a", "a"));
  EXPECT_THAT(split("Removed", true), ElementsAre("c", "c", "c"));
  EXPECT_THAT(split("Contiguous"), ElementsAre("a", "ccc", "a"));
  EXPECT_THAT(split("MergedWithPrevious"), ElementsAre("ac", "c", "c", "a"));
  EXPECT_THAT(split("MergedWithNext"), ElementsAre("a", "c", "c", "ca"));
}

TEST(TokenizerTest, PrefixSpace) {
  json tokenizer = SmallJson();
  tokenizer["pre_tokenizer"]["add_prefix_space"] = true;
  const auto built = Build(tokenizer);
  EXPECT_THAT(built->Encode("abc", kParse), ElementsAre(8, 2));
  EXPECT_THAT(built->Encode(" abc", kParse), ElementsAre(8, 2));
  EXPECT_THAT(built->EncodeWithRanges("abc", {}).ranges, ElementsAre(TextRange{0, 2}, TextRange{2, 3}));
}

void ExpectRoundTrip(const char* name, const std::string& text) {
  const auto tokenizer = TestTokenizer(name);
  const std::vector<TokenId> ids = tokenizer->Encode(text, kParse);
  EXPECT_EQ(tokenizer->Decode(ids, false), text) << name << " " << text.substr(0, 4);
}

std::string Megabyte(const std::string& unit) {
  std::string text;
  while (text.size() < 1'000'000) text += unit;
  return text;
}

TEST(TokenizerTest, LongRunsTakeNearLinearWork) {
  // Quadratic work on any of these would take minutes.
  for (const char* unit : {"a", " ", "\xE6\x97\xA5", "<"}) ExpectRoundTrip("smollm2", Megabyte(unit));
  for (const char* unit : {"\n", "\t ", "0"}) ExpectRoundTrip("llama-bpe", Megabyte(unit) + "x");
  for (const char* unit : {" ", "a", "\xE6\x97\xA5", "\xF0\x9F\xAB\xA0", "the "})
    ExpectRoundTrip("gemma3", Megabyte(unit));
  // Combining marks out of their canonical order, which NFC has to sort: acute (230) before cedilla (202).
  const auto qwen2 = TestTokenizer("qwen2");
  const std::string marks = Megabyte("\xCC\x81") + Megabyte("\xCC\xA7");
  EXPECT_EQ(qwen2->Decode(qwen2->Encode("x" + marks, kParse), false),
            "x" + Megabyte("\xCC\xA7") + Megabyte("\xCC\x81"));
}

TEST(TokenizerTest, FourMegabytesOfSpacesStayBelowTheStepLimit) {
  const auto qwen2 = TestTokenizer("qwen2");
  const std::vector<TokenId> ids = qwen2->Encode(std::string(4'000'000, ' ') + "x", kParse);
  EXPECT_EQ(ids.back(), *qwen2->Find(" x"));  // as the pattern wants it: the last space belongs to the word
}

}  // namespace
}  // namespace trimtab
