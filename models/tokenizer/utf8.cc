#include "models/tokenizer/utf8.h"

#include <algorithm>

namespace trimtab {

Utf8Step ReadUtf8(std::string_view text, size_t position) {
  constexpr char32_t kBroken = 0xFFFD;
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(position);
  if (lead < 0x80) return {1, true, false, lead};

  // Table 3-7 of the Unicode standard: length, and the range of the second byte.
  size_t length = 0;
  unsigned char low = 0x80, high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {1, false, false, kBroken};
  }
  char32_t codepoint = lead & (0x7F >> length);
  for (size_t i = 1; i < length; ++i) {
    if (position + i >= text.size()) return {i, false, true, kBroken};
    const unsigned char next = byte(position + i);
    if (next < low || next > high) return {i, false, false, kBroken};
    codepoint = codepoint << 6 | (next & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return {length, true, false, codepoint};
}

bool IsValidUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Utf8Step step = ReadUtf8(text, i);
    if (!step.valid) return false;
    i += step.length;
  }
  return true;
}

size_t AppendCompleteUtf8(std::string_view text, std::string& out, BrokenUtf8 broken) {
  size_t i = 0;
  while (i < text.size()) {
    const Utf8Step step = ReadUtf8(text, i);
    if (step.needs_more) break;
    const size_t length = step.valid || broken == BrokenUtf8::kPerPart ? step.length : 1;
    out += step.valid ? text.substr(i, length) : kReplacementCharacter;
    i += length;
  }
  return i;
}

std::string ReplaceInvalidUtf8(std::string_view text, BrokenUtf8 broken) {
  std::string out;
  out.reserve(text.size());
  const size_t rest = text.size() - AppendCompleteUtf8(text, out, broken);
  const size_t replaced = broken == BrokenUtf8::kPerPart ? std::min<size_t>(rest, 1) : rest;
  for (size_t i = 0; i < replaced; ++i) out += kReplacementCharacter;
  return out;
}

}  // namespace trimtab
