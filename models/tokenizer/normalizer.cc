#include "models/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>

#include "models/tokenizer/utf8.h"

namespace trimtab {
namespace {

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

int CombiningClass(utf8proc_int32_t codepoint) { return utf8proc_get_property(codepoint)->combining_class; }

}  // namespace

std::string ToNfc(std::string_view text) {
  if (IsAscii(text)) return std::string(text);
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Step step = ReadUtf8(text, i);
    utf8proc_int32_t parts[8];  // the longest canonical decomposition has 4
    int unused_boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(step.codepoint), parts, 8,
                                                           UTF8PROC_DECOMPOSE, &unused_boundary);
    for (utf8proc_ssize_t k = 0; k < count; ++k) points.push_back(parts[k]);
    i += step.length;
  }
  // Canonical ordering. utf8proc's own is quadratic on long runs of marks.
  for (size_t i = 0; i < points.size();) {
    size_t end = i;
    while (end < points.size() && CombiningClass(points[end]) != 0) ++end;
    std::stable_sort(points.begin() + i, points.begin() + end,
                     [](auto a, auto b) { return CombiningClass(a) < CombiningClass(b); });
    i = std::max(end, i + 1);
  }
  const utf8proc_ssize_t count =
      utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t length = utf8proc_encode_char(points[i], bytes);
    out.append(reinterpret_cast<const char*>(bytes), length);
  }
  return out;
}

NormalizedText::NormalizedText(std::string_view original, Normalization normalization) : original_(original) {
  if (normalization == Normalization::kNone || IsAscii(original) || ToNfc(original) == original) return;
  // An ASCII character never composes with what stands before it, so the parts between can be taken one by one.
  for (size_t begin = 0; begin < original.size();) {
    size_t end = begin + 1;
    while (end < original.size() && static_cast<unsigned char>(original[end]) >= 0x80) ++end;
    const std::string_view part = original.substr(begin, end - begin);
    const std::string normalized = ToNfc(part);
    chunks_.push_back({storage_.size(), begin, normalized != part});
    storage_ += normalized;
    begin = end;
  }
}

const NormalizedText::Chunk& NormalizedText::ChunkOf(size_t position) const {
  const auto after = std::upper_bound(chunks_.begin(), chunks_.end(), position,
                                      [](size_t value, const Chunk& chunk) { return value < chunk.begin; });
  return *(after - 1);
}

TextRange NormalizedText::ToOriginal(TextRange range) const {
  if (chunks_.empty() || range.begin >= range.end) return range;
  const Chunk& first = ChunkOf(range.begin);
  const Chunk& last = ChunkOf(range.end - 1);
  TextRange result;
  result.begin = first.original_begin + (first.changed ? 0 : range.begin - first.begin);
  const bool is_final = &last == &chunks_.back();
  result.end = !last.changed ? last.original_begin + (range.end - last.begin)
               : is_final    ? original_.size()
                             : (&last + 1)->original_begin;
  return result;
}

}  // namespace trimtab
