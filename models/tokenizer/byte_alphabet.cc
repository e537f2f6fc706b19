#include "models/tokenizer/byte_alphabet.h"

#include <array>

#include "models/tokenizer/utf8.h"

namespace trimtab {
namespace {

// Code point → byte, -1 outside the alphabet. The alphabet ends at U+0143: the 68 bytes that are not printable in
// Latin-1 take U+0100 and on, in order.
constexpr std::array<int, 0x144> MakeAlphabet() {
  std::array<int, 0x144> byte_of{};
  for (int& byte : byte_of) byte = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    byte_of[printable ? byte : next++] = byte;
  }
  return byte_of;
}

constexpr std::array<int, 0x144> kByteOf = MakeAlphabet();

}  // namespace

std::optional<std::string> DecodeByteAlphabet(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Step step = ReadUtf8(text, i);
    if (!step.valid || step.codepoint >= kByteOf.size() || kByteOf[step.codepoint] < 0) return std::nullopt;
    bytes += static_cast<char>(kByteOf[step.codepoint]);
    i += step.length;
  }
  return bytes;
}

}  // namespace trimtab
