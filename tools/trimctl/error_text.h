// Errors for people: what went wrong, every field violation, what to do. Any thread.
#ifndef TRIMTAB_TOOLS_TRIMCTL_ERROR_TEXT_H_
#define TRIMTAB_TOOLS_TRIMCTL_ERROR_TEXT_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace trimtab {

// What to do about a reason of the API; empty where the error itself says it all, and for reasons
// that this program does not know.
std::string_view HintFor(std::string_view reason);

// Lines for a terminal: "REASON: message", one "  field: what to change" for each violation, the reason's metadata and
// "  hint". `address` is named when no server answered there.
std::string FormatError(const absl::Status& status, std::string_view address);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_ERROR_TEXT_H_
