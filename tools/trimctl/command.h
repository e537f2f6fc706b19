// One subcommand of trimctl and what it runs with. Main thread.
#ifndef TRIMTAB_TOOLS_TRIMCTL_COMMAND_H_
#define TRIMTAB_TOOLS_TRIMCTL_COMMAND_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "tools/trimctl/client.h"

namespace trimtab {

// Exit statuses, documented by --help. 130 after Ctrl-C.
enum class ExitCode { kOk = 0, kUsage = 1, kServerError = 2, kUnavailable = 3, kNotFound = 4, kJobFailed = 5 };

// What a command runs with.
struct Cli {
  Client& client;
  bool json = false;            // -o json
  bool color = false;           // escape sequences on standard output
  bool progress_color = false;  // standard error is a terminal

  // Prints `text`, or `message` as JSON under -o json, to standard output.
  void Print(const google::protobuf::Message& message, const std::string& text) const;
};

struct Command {
  std::string_view name;                // "generate"
  std::string_view arguments;           // "PROMPT"
  std::string_view summary;             // one line
  std::string_view details;             // paragraphs for `trimctl NAME --help`; may be empty
  std::vector<std::string_view> flags;  // that it reads, beside the common ones
  int min_arguments = 0, max_arguments = 0;
  // The exit status of a run that has told the user all there is to say; else an error to print.
  absl::StatusOr<ExitCode> (*run)(Cli& cli, const std::vector<std::string>& arguments);
};

// An error of the caller's: exit status 1 and a pointer to --help.
absl::Status UsageError(std::string_view message);
bool IsUsageError(const absl::Status& status);
// `status` with its code and message, as a usage error.
absl::Status AsUsageError(const absl::Status& status);

// The groups that make up the command line, each in its own file.
std::vector<Command> RegisterCommands();
std::vector<Command> ObjectiveCommands();
std::vector<Command> CurveCommands();
std::vector<Command> FileCommands();
std::vector<Command> GenerateCommands();
std::vector<Command> DriftCommands();
std::vector<Command> ModelCommands();
std::vector<Command> ServerCommands();

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_COMMAND_H_
