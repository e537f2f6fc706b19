// Cuts a text into the pieces that the model (Bpe, Unigram) then treats one by one. Immutable after building; any
// thread.
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
#include "models/tokenizer/text_edits.h"
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

// Where MetaspaceStep puts its replacement before a piece: nowhere, at the beginning of the whole text, at every piece.
enum class PrependScheme { kNever, kFirst, kAlways };

// Replaces spaces, puts the replacement before a piece that does not begin with it, and splits before it.
struct MetaspaceStep {
  std::string replacement = "\u2581";  // one character
  PrependScheme scheme = PrependScheme::kAlways;
  bool split = true;
};

using PreTokenizerStep = std::variant<SplitStep, PrefixSpaceStep, MetaspaceStep>;

// One piece.
struct Piece {
  std::string_view text;
  size_t begin = 0;                  // where it begins: in the rewritten text, or else in the one given to Split
  const TextEdits* edits = nullptr;  // of the rewritten text; null: no step changed it
  size_t edits_begin = 0;            // where the rewritten part begins in the text given to Split

  // The bytes of the text given to Split from which `range` of `text` came.
  TextRange ToSource(TextRange range) const {
    range = {begin + range.begin, begin + range.end};
    if (edits == nullptr) return range;
    range = edits->ToOld(range);
    return {edits_begin + range.begin, edits_begin + range.end};
  }
};

class PreTokenizer {
 public:
  // At most one step may be a PrefixSpaceStep or MetaspaceStep.
  explicit PreTokenizer(std::vector<PreTokenizerStep> steps) : steps_(std::move(steps)) {}

  // The pieces of one text; they refer to it and to this object.
  struct Pieces {
    struct Rewritten {
      std::string text;
      TextEdits edits;
    };
    std::vector<Piece> pieces;
    std::deque<Rewritten> storage;  // pieces that a step changed
  };

  // Cuts `text` (valid UTF-8); `is_start`: the whole text that is encoded begins here. RESOURCE_EXHAUSTED comes from a
  // pattern at its step limit: the pieces are then complete but too coarse.
  absl::Status Split(std::string_view text, bool is_start, Pieces& result) const;

 private:
  std::vector<PreTokenizerStep> steps_;
};

// GPT-2's pattern, the one that Hugging Face's ByteLevel applies when use_regex is set.
extern const char kGpt2Pattern[];

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_PRE_TOKENIZER_H_
