// Reads preference pairs from JSON lines, the format that people write and that data sets come in:
//   {"prompt": "...", "preferred": "...", "dispreferred": "...", "weight": 1}
// "prompt" may be a list of turns, [{"role": "system" | "user" | "assistant", "text": "..."}]; the names question,
// chosen and rejected are accepted for prompt, preferred and dispreferred, and content for text. Any thread.
#ifndef TRIMTAB_TOOLS_TRIMCTL_PAIRS_FILE_H_
#define TRIMTAB_TOOLS_TRIMCTL_PAIRS_FILE_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "trimtab/v1/objective.pb.h"

namespace trimtab {

// The pairs of `text`, in order; empty lines are skipped. INVALID_ARGUMENT with one line "file:line: what to change"
// for each mistake, at most 20, and the number of the others.
absl::StatusOr<std::vector<v1::PreferencePair>> ParsePairs(std::string_view text, std::string_view file);

// The pairs of the file at `path`. NOT_FOUND or INVALID_ARGUMENT.
absl::StatusOr<std::vector<v1::PreferencePair>> ReadPairsFile(const std::string& path);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_PAIRS_FILE_H_
