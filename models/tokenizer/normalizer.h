// The normalisation of a text before it is split: none, or Unicode NFC (Qwen). Any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_NORMALIZER_H_
#define TRIMTAB_MODELS_TOKENIZER_NORMALIZER_H_

#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer/text_range.h"

namespace trimtab {

enum class Normalization { kNone, kNfc };

// A normalised text that remembers where each part of it came from.
class NormalizedText {
 public:
  // `original` must be valid UTF-8 and outlive the result.
  NormalizedText(std::string_view original, Normalization normalization);
  NormalizedText(const NormalizedText&) = delete;
  NormalizedText& operator=(const NormalizedText&) = delete;

  std::string_view text() const { return chunks_.empty() ? original_ : std::string_view(storage_); }

  // The bytes of the original from which `range` of text() came; wider than exact where characters were composed.
  TextRange ToOriginal(TextRange range) const;

 private:
  // A part of the text that is normalised on its own: an ASCII character and the other characters after it.
  struct Chunk {
    size_t begin;           // in storage_
    size_t original_begin;  // in original_
    bool changed;
  };

  const Chunk& ChunkOf(size_t position) const;

  std::string_view original_;
  std::string storage_;
  std::vector<Chunk> chunks_;  // empty: normalisation changed nothing
};

// NFC of `text` (valid UTF-8). Linear in its length but for sorting runs of combining marks.
std::string ToNfc(std::string_view text);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_NORMALIZER_H_
