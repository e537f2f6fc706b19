// Cuts a text into the pieces that byte-pair merging then treats one by one. Immutable after building; any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_PRE_TOKENIZER_H_
#define TRIMTAB_MODELS_TOKENIZER_PRE_TOKENIZER_H_

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "models/tokenizer/regex.h"
#include "models/tokenizer/text_range.h"

namespace trimtab {

// What becomes of the matches of a pattern (Hugging Face's SplitDelimiterBehavior).
enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Splits each piece at the matches of a pattern.
struct SplitStep {
  std::variant<Regex, std::string> pattern;  // a regular expression, or a text that matches itself
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what the pattern leaves out counts as the match
};

// Puts a space before each piece that does not begin with one.
struct PrefixSpaceStep {};

using PreTokenizerStep = std::variant<SplitStep, PrefixSpaceStep>;

// One piece. `text` is the text given to Split at `range`, after a space of our own if `has_prefix_space`.
struct Piece {
  std::string_view text;
  TextRange range;
  bool has_prefix_space = false;
};

class PreTokenizer {
 public:
  explicit PreTokenizer(std::vector<PreTokenizerStep> steps) : steps_(std::move(steps)) {}

  // The pieces of one text; they refer to it and to this object.
  struct Pieces {
    std::vector<Piece> pieces;
    std::deque<std::string> storage;  // pieces that needed a prefix space
  };

  // Cuts `text` (valid UTF-8). RESOURCE_EXHAUSTED comes from a pattern at its step limit: the pieces are then complete
  // but too coarse.
  absl::Status Split(std::string_view text, Pieces& result) const;

 private:
  std::vector<PreTokenizerStep> steps_;
};

// GPT-2's pattern, the one that Hugging Face's ByteLevel applies when use_regex is set.
extern const char kGpt2Pattern[];

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_PRE_TOKENIZER_H_
