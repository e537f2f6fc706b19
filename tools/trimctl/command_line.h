// What absl's flags do not do: commands with flags of their own, flags that may be repeated, help for each command.
// Main thread.
#ifndef TRIMTAB_TOOLS_TRIMCTL_COMMAND_LINE_H_
#define TRIMTAB_TOOLS_TRIMCTL_COMMAND_LINE_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "tools/trimctl/command.h"

namespace trimtab {

// `arguments` with the flags before the command moved behind it: --address=x generate hi becomes generate --address=x
// hi. Unchanged without a command, or when it comes first.
std::vector<std::string> CommandFirst(std::vector<std::string> arguments);

// `arguments` with all occurrences of a flag in `names` joined by commas into the first: --steer a=1 --steer=b becomes
// --steer=a=1,b. Stops at "--".
std::vector<std::string> JoinRepeated(const std::vector<std::string>& arguments,
                                      const std::vector<std::string_view>& names);

// A usage error if `arguments` hold a flag that is none of `command`'s and none of the common ones.
absl::Status CheckFlags(const Command& command, const std::vector<std::string>& arguments);

// `trimctl --help` and `trimctl NAME --help`.
std::string GeneralHelp(const std::vector<Command>& commands);
std::string CommandHelp(const Command& command);

// The names that most resemble `name`, for "did you mean"; empty when none is close.
std::string Closest(std::string_view name, const std::vector<Command>& commands);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_COMMAND_LINE_H_
