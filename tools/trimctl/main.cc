// trimctl: the operators' command line.
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "tools/trimctl/command.h"
#include "tools/trimctl/command_line.h"
#include "tools/trimctl/error_text.h"
#include "tools/trimctl/flags.h"
#include "tools/trimctl/text.h"

namespace trimtab {
namespace {

std::vector<Command> AllCommands() {
  std::vector<Command> all;
  for (std::vector<Command> (*group)() : {RegisterCommands, ObjectiveCommands, CurveCommands, FileCommands,
                                          GenerateCommands, DriftCommands, ModelCommands, ServerCommands}) {
    for (Command& command : group()) all.push_back(std::move(command));
  }
  return all;
}

bool IsHelp(const std::string& argument) {
  return argument == "--help" || argument == "-help" || argument == "-h" || argument == "help";
}

ExitCode ExitCodeOf(const absl::Status& status) {
  if (IsUsageError(status)) return ExitCode::kUsage;
  if (absl::IsUnavailable(status)) return ExitCode::kUnavailable;
  return absl::IsNotFound(status) ? ExitCode::kNotFound : ExitCode::kServerError;
}

absl::StatusOr<bool> WantsColor(bool terminal) {
  const std::string color = absl::GetFlag(FLAGS_color);
  if (color == "always") return true;
  if (color == "never") return false;
  if (color != "auto") return UsageError("--color must be \"auto\", \"always\" or \"never\"");
  const char* no_color = std::getenv("NO_COLOR");
  return terminal && (no_color == nullptr || *no_color == '\0');
}

absl::StatusOr<ExitCode> Run(const Command& command, const std::vector<std::string>& arguments, Interrupt& interrupt) {
  const std::string output = absl::GetFlag(FLAGS_o);
  if (output != "text" && output != "json") return UsageError("-o must be \"text\" or \"json\"");
  const absl::StatusOr<bool> color = WantsColor(isatty(STDOUT_FILENO) != 0);
  if (!color.ok()) return color.status();
  const auto count = static_cast<int>(arguments.size());
  if (count < command.min_arguments || count > command.max_arguments) {
    return UsageError(absl::StrCat("\"", std::string(command.name), "\" takes ",
                                   command.arguments.empty() ? "no arguments" : std::string(command.arguments)));
  }
  Client client(absl::GetFlag(FLAGS_address), absl::GetFlag(FLAGS_timeout), interrupt);
  Cli cli{.client = client, .json = output == "json", .color = *color, .progress_color = isatty(STDERR_FILENO) != 0};
  return command.run(cli, arguments);
}

int Main(std::vector<std::string> arguments) {
  const std::vector<Command> commands = AllCommands();
  if (arguments.empty() || !IsHelp(arguments[0])) arguments = CommandFirst(std::move(arguments));
  // "help generate" is "generate --help".
  if (arguments.size() > 1 && arguments[0] == "help") arguments = {arguments[1], "--help"};
  if (arguments.empty() || IsHelp(arguments[0])) {
    (arguments.empty() ? std::cerr : std::cout) << GeneralHelp(commands);
    return static_cast<int>(arguments.empty() ? ExitCode::kUsage : ExitCode::kOk);
  }
  const Command* command = nullptr;
  for (const Command& candidate : commands) {
    if (candidate.name == arguments[0]) command = &candidate;
  }
  if (command == nullptr) {
    const std::string closest = Closest(arguments[0], commands);
    std::cerr << "trimctl: there is no command \"" << Printable(arguments[0]) << "\""
              << (closest.empty() ? "" : "; did you mean \"" + closest + "\"?") << "\nRun `trimctl --help`.\n";
    return static_cast<int>(ExitCode::kUsage);
  }
  arguments.erase(arguments.begin());
  for (const std::string& argument : arguments) {
    if (argument == "--") break;
    if (argument == "help" || !IsHelp(argument)) continue;
    std::cout << CommandHelp(*command);
    return static_cast<int>(ExitCode::kOk);
  }
  Interrupt interrupt;
  absl::StatusOr<ExitCode> exit_code = ExitCode::kOk;
  if (const absl::Status flags = CheckFlags(*command, arguments); !flags.ok()) {
    exit_code = flags;
  } else {
    arguments = JoinRepeated(arguments, {"steer", "stop", "clear"});
    std::vector<char*> argv = {const_cast<char*>("trimctl")};
    for (std::string& argument : arguments) argv.push_back(argument.data());
    const std::vector<char*> rest = absl::ParseCommandLine(static_cast<int>(argv.size()), argv.data());
    exit_code = Run(*command, {rest.begin() + 1, rest.end()}, interrupt);
  }
  if (exit_code.ok()) return static_cast<int>(*exit_code);
  if (interrupt.requested()) return kExitInterrupted;
  if (IsUsageError(exit_code.status())) {
    std::cerr << "trimctl: " << exit_code.status().message() << "\nRun `trimctl " << command->name << " --help`.\n";
  } else {
    std::cerr << "trimctl: " << FormatError(exit_code.status(), absl::GetFlag(FLAGS_address));
  }
  return static_cast<int>(ExitCodeOf(exit_code.status()));
}

}  // namespace

}  // namespace trimtab

int main(int argc, char** argv) {
  // `bazelw run` starts programs in a folder of its own; file names on the command line mean the caller's.
  if (const char* folder = std::getenv("BUILD_WORKING_DIRECTORY"); folder != nullptr && chdir(folder) != 0) {
    std::cerr << "trimctl: cannot go to the folder " << folder << "\n";
    return static_cast<int>(trimtab::ExitCode::kUsage);
  }
  return trimtab::Main({argv + 1, argv + argc});
}
