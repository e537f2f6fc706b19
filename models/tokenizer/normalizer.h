// The normalisation of a text before it is split: Unicode normal forms (Qwen: NFC), replacements (Gemma: spaces become
// "▁"), a prefix (Llama 2) and more, as the "normalizer" of a tokenizer.json says. Immutable after building; any
// thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_NORMALIZER_H_
#define TRIMTAB_MODELS_TOKENIZER_NORMALIZER_H_

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "models/tokenizer/regex.h"
#include "models/tokenizer/text_edits.h"
#include "models/tokenizer/text_range.h"
#include "models/tokenizer/unicode.h"

namespace trimtab {

struct LowercaseStep {};

// Replaces what the pattern (a regular expression, or a text that is not empty) matches.
struct ReplaceStep {
  std::variant<Regex, std::string> pattern;
  std::string content;
};

// Puts `text` before every text that is not empty.
struct PrependStep {
  std::string text;
};

// Takes white space away at the ends.
struct StripStep {
  bool left = false;
  bool right = false;
};

using NormalizerStep = std::variant<NormalForm, LowercaseStep, ReplaceStep, PrependStep, StripStep>;

class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {}

  const std::vector<NormalizerStep>& steps() const { return steps_; }
  bool empty() const { return steps_.empty(); }

 private:
  std::vector<NormalizerStep> steps_;
};

// A normalised text that remembers where each part of it came from.
class NormalizedText {
 public:
  // `original` must be valid UTF-8 and outlive the result. Should a pattern reach its step limit, what it would have
  // matched from there on stays as it is (logged as an error).
  NormalizedText(std::string_view original, const Normalizer& normalizer);
  NormalizedText(const NormalizedText&) = delete;
  NormalizedText& operator=(const NormalizedText&) = delete;

  std::string_view text() const { return edits_.empty() ? original_ : std::string_view(storage_); }

  // The bytes of the original from which `range` of text() came; wider than exact where characters were composed.
  TextRange ToOriginal(TextRange range) const;

 private:
  std::string_view original_;
  std::string storage_;
  std::vector<TextEdits> edits_;  // of each step that changed something, in order
};

// Places in `text` that `pattern` matches, left to right, without overlaps. Errors: as Regex::FindAll.
absl::Status FindPattern(const std::variant<Regex, std::string>& pattern, std::string_view text,
                         std::vector<TextRange>& matches);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_NORMALIZER_H_
