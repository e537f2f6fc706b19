// The regular expressions of pre-tokenizers: PCRE2 with JIT, made to agree with Oniguruma, which the reference uses.
// Immutable after Create; any thread (each thread has its own match data).
#ifndef TRIMTAB_MODELS_TOKENIZER_REGEX_H_
#define TRIMTAB_MODELS_TOKENIZER_REGEX_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/tokenizer/text_range.h"

namespace trimtab {

class Regex {
 public:
  // Errors: INVALID_ARGUMENT for a pattern that PCRE2 refuses or that is longer than 16 KiB; UNIMPLEMENTED for syntax
  // whose meaning differs between PCRE2 and Oniguruma (\h, \S inside a character class).
  static absl::StatusOr<Regex> Create(std::string_view pattern);

  // Appends every match in `text`, left to right, without overlaps, as Oniguruma's find_iter does. `text` must be valid
  // UTF-8. Bounded work: RESOURCE_EXHAUSTED when one match reaches the step limit (only a pattern that backtracks
  // wildly can); `matches` then holds the matches before it.
  absl::Status FindAll(std::string_view text, std::vector<TextRange>& matches) const;

 private:
  explicit Regex(std::shared_ptr<const void> code) : code_(std::move(code)) {}

  std::shared_ptr<const void> code_;  // pcre2_code
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_REGEX_H_
