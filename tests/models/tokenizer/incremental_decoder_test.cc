#include "models/tokenizer/incremental_decoder.h"

#include <gtest/gtest.h>

#include <random>

#include "models/tokenizer/utf8.h"
#include "tests/models/tokenizer/vocabularies.h"

namespace trimtab {
namespace {

TEST(IncrementalDecoderTest, HoldsBackHalfCharacters) {
  const auto tokenizer = TestTokenizer("llama-bpe");
  // Tokens of single bytes of a four-byte character.
  const std::string emoji = "\xF0\x9F\xAB\xA0";
  IncrementalDecoder decoder(tokenizer, false);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(decoder.Push(*tokenizer->Find(emoji.substr(i, 1))), "");
  EXPECT_EQ(decoder.Push(*tokenizer->Find(emoji.substr(3))), emoji);
  EXPECT_EQ(decoder.Flush(), "");
}

TEST(IncrementalDecoderTest, FlushReplacesWhatStaysIncomplete) {
  const auto tokenizer = TestTokenizer("llama-bpe");
  IncrementalDecoder decoder(tokenizer, false);
  EXPECT_EQ(decoder.Push(*tokenizer->Find("\xF0")), "");
  EXPECT_EQ(decoder.Flush(), kReplacementCharacter);
  EXPECT_EQ(decoder.Flush(), "");
  EXPECT_EQ(decoder.Push(*tokenizer->Find("a")), "a");
}

TEST(IncrementalDecoderTest, SkipsControlTokensIfTold) {
  const auto tokenizer = TestTokenizer("smollm2");
  EXPECT_EQ(IncrementalDecoder(tokenizer, true).Push(2), "");
  EXPECT_EQ(IncrementalDecoder(tokenizer, false).Push(2), "<|im_end|>");
}

TEST(IncrementalDecoderTest, RandomTokensDecodeAsAtOnce) {
  std::mt19937 random(5);
  for (const char* name : {"smollm2", "llama-bpe"}) {
    const auto tokenizer = TestTokenizer(name);
    // Half of the draws are tokens that are no whole UTF-8: those that a stream can go wrong on.
    std::vector<TokenId> partial;
    for (TokenId id = 0; id < tokenizer->vocab_size(); ++id) {
      if (!IsValidUtf8(tokenizer->TokenBytes(id))) partial.push_back(id);
    }
    ASSERT_GT(partial.size(), 100u);
    for (int round = 0; round < 2000; ++round) {
      const bool skip = round % 2;
      IncrementalDecoder decoder(tokenizer, skip);
      std::vector<TokenId> ids;
      std::string text, bytes;
      for (unsigned left = random() % 40; left > 0; --left) {
        ids.push_back(random() % 2 ? partial[random() % partial.size()]
                                   : static_cast<TokenId>(random() % tokenizer->vocab_size()));
        const std::string piece = decoder.Push(ids.back());
        ASSERT_TRUE(IsValidUtf8(piece));
        text += piece;
        if (!skip || !tokenizer->IsSpecial(ids.back())) bytes += tokenizer->TokenBytes(ids.back());
        // Never more than three bytes behind: U+FFFD is no shorter than what it stands for.
        ASSERT_GE(text.size() + 3, bytes.size());
      }
      text += decoder.Flush();
      ASSERT_EQ(text, tokenizer->Decode(ids, skip));
    }
  }
}

}  // namespace
}  // namespace trimtab
