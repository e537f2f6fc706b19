#include "models/tokenizer/token_decoder.h"

#include <algorithm>

#include "models/tokenizer/text_edits.h"

namespace trimtab {
namespace {

std::string ReplaceAll(std::string_view text, const ReplaceStep& step) {
  std::vector<TextRange> matches;
  // A token is far too short for a pattern to reach its step limit.
  if (!FindPattern(step.pattern, text, matches).ok()) return std::string(text);
  TextEditor editor(text);
  for (const TextRange& match : matches) editor.Replace(match, step.content);
  return editor.Finish();
}

std::string Apply(const ReplaceStep& step, std::string_view text, bool) { return ReplaceAll(text, step); }

std::string Apply(const MetaspaceDecoderStep& step, std::string_view text, bool is_first) {
  return ReplaceAll(text, {.pattern = step.replacement, .content = is_first && step.drop_first ? "" : " "});
}

std::string Apply(const StripCharacterStep& step, std::string_view text, bool) {
  for (size_t i = 0; i < step.start && text.starts_with(step.content); ++i) text.remove_prefix(step.content.size());
  for (size_t i = 0; i < step.stop && text.ends_with(step.content); ++i) text.remove_suffix(step.content.size());
  return std::string(text);
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

std::optional<unsigned char> ParseByteToken(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text.back() != '>') return std::nullopt;
  const int high = HexDigit(text[3]), low = HexDigit(text[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<unsigned char>(high << 4 | low);
}

std::string ByteTokenText(unsigned char byte) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  return {'<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
}

std::string TokenDecoder::Apply(std::string_view text, bool is_first) const {
  if (options_.byte_fallback) {
    if (const auto byte = ParseByteToken(text)) return std::string(1, static_cast<char>(*byte));
  }
  std::string result(text);
  for (const TokenDecoderStep& step : options_.steps) {
    result = std::visit([&](const auto& kind) { return trimtab::Apply(kind, result, is_first); }, step);
  }
  return result;
}

void TokenDecoder::Append(std::string_view text, DecodePosition& position, std::string& bytes) const {
  const std::string decoded = Apply(text, position.is_first);
  position.is_first = false;
  std::string_view rest = decoded;
  if (options_.strip && position.may_strip) {
    const StripCharacterStep& strip = *options_.strip;
    while (position.stripped < strip.start && rest.starts_with(strip.content)) {
      rest.remove_prefix(strip.content.size());
      ++position.stripped;
    }
    position.may_strip = rest.empty() && position.stripped < strip.start;
  }
  bytes += rest;
}

}  // namespace trimtab
