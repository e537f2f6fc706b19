#include "models/tokenizer/token_decoder.h"

#include <gtest/gtest.h>

namespace trimtab {
namespace {

// SentencePiece's decoder, as Llama 2's tokenizer.json has it.
TokenDecoder Llama2() {
  return TokenDecoder({.steps = {ReplaceStep{.pattern = std::string("\u2581"), .content = " "}},
                       .byte_fallback = true,
                       .strip = StripCharacterStep{.content = " ", .start = 1}});
}

std::string Decode(const TokenDecoder& decoder, const std::vector<std::string>& tokens, DecodePosition position = {}) {
  std::string bytes;
  for (const std::string& token : tokens) decoder.Append(token, position, bytes);
  return bytes;
}

TEST(TokenDecoderTest, OneSpaceIsTakenFromTheBeginningOfAText) {
  EXPECT_EQ(Decode(Llama2(), {"\u2581a", "\u2581b"}), "a b");
  EXPECT_EQ(Decode(Llama2(), {"\u2581", "\u2581b"}), " b");
  EXPECT_EQ(Decode(Llama2(), {"a", "\u2581b"}), "a b");
  EXPECT_EQ(Decode(Llama2(), {"\u2581a"}, DecodePosition::Inside()), " a");
}

TEST(TokenDecoderTest, ByteTokensAreBytes) {
  EXPECT_EQ(Decode(Llama2(), {"<0xE6>", "<0x97>", "<0xa5>", "<0xZZ>"}), "\u65e5<0xZZ>");
  EXPECT_EQ(Decode(TokenDecoder({}), {"<0x41>"}), "<0x41>");
  EXPECT_EQ(ParseByteToken("<0x0A>"), 10);
  EXPECT_EQ(ParseByteToken("<0x0A"), std::nullopt);
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(ParseByteToken(ByteTokenText(static_cast<unsigned char>(byte))), byte);
  }
}

TEST(TokenDecoderTest, MetaspaceDropsTheMarksOfTheFirstToken) {
  for (const bool drop : {true, false}) {
    const TokenDecoder decoder({.steps = {MetaspaceDecoderStep{.replacement = "\u2581", .drop_first = drop}}});
    EXPECT_EQ(Decode(decoder, {"\u2581a\u2581b", "\u2581c"}), drop ? "ab c" : " a b c");
  }
}

TEST(TokenDecoderTest, StripOfEachToken) {
  const TokenDecoder decoder({.steps = {StripCharacterStep{.content = "x", .start = 1, .stop = 2}}});
  EXPECT_EQ(Decode(decoder, {"xxaxxx", "x", "bx"}), "xaxb");
}

}  // namespace
}  // namespace trimtab
