#include "tools/trimctl/command_line.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/flags/flag.h"

ABSL_FLAG(std::string, steer, "", "an objective");
ABSL_FLAG(bool, watch, false, "waits");
ABSL_FLAG(std::string, o, "text", "the format");

namespace trimtab {
namespace {

using Arguments = std::vector<std::string>;

Command MakeCommand(std::string_view name, std::vector<std::string_view> flags) {
  return {.name = name,
          .arguments = "FILE",
          .summary = "does it",
          .details = "In detail.",
          .flags = std::move(flags),
          .run = [](Cli&, const Arguments&) -> absl::StatusOr<ExitCode> { return ExitCode::kOk; }};
}

TEST(CommandLine, FlagsMayStandBeforeTheCommand) {
  EXPECT_EQ(CommandFirst({"-o=json", "generate", "hi"}), (Arguments{"generate", "-o=json", "hi"}));
  EXPECT_EQ(CommandFirst({"-o", "json", "--watch", "register", "x"}),
            (Arguments{"register", "-o", "json", "--watch", "x"}));
  EXPECT_EQ(CommandFirst({"--unknown", "register"}), (Arguments{"register", "--unknown"}));
  for (const Arguments& same :
       {Arguments{"generate", "-o", "json"}, Arguments{"--watch"}, Arguments{"-o"}, Arguments{}}) {
    EXPECT_EQ(CommandFirst(same), same);
  }
}

TEST(CommandLine, JoinsRepeatedFlags) {
  EXPECT_EQ(JoinRepeated({"hi", "--steer", "a=1", "--watch", "--steer=b", "-steer", "c"}, {"steer"}),
            (Arguments{"hi", "--steer=a=1,b,c", "--watch"}));
  EXPECT_EQ(JoinRepeated({"--steer=a", "--", "--steer=b"}, {"steer"}), (Arguments{"--steer=a", "--", "--steer=b"}));
  EXPECT_EQ(JoinRepeated({"--steer"}, {"steer"}), (Arguments{"--steer"}));
}

TEST(CommandLine, RefusesFlagsOfOtherCommands) {
  const Command command = MakeCommand("generate", {"steer"});
  EXPECT_TRUE(CheckFlags(command, {"hi", "--steer", "--x", "-o", "json"}).ok());
  EXPECT_TRUE(CheckFlags(command, {"--steer=a", "--", "--watch"}).ok());
  EXPECT_TRUE(CheckFlags(command, {"-"}).ok());
  for (const char* flag : {"--watch", "--nowatch", "--unknown=3", "-x"}) {
    EXPECT_TRUE(IsUsageError(CheckFlags(command, {flag}))) << flag;
  }
  EXPECT_TRUE(CheckFlags(MakeCommand("register", {"watch"}), {"--nowatch", "--watch", "x"}).ok());
}

TEST(CommandLine, HelpNamesCommandsFlagsAndExitStatuses) {
  const Command command = MakeCommand("generate", {"steer"});
  const std::string general = GeneralHelp({command});
  EXPECT_NE(general.find("  generate     does it\n"), std::string::npos) << general;
  EXPECT_NE(general.find("5 the job failed"), std::string::npos) << general;
  const std::string help = CommandHelp(command);
  EXPECT_NE(help.find("Usage: trimctl generate FILE [FLAGS]"), std::string::npos) << help;
  EXPECT_NE(help.find("In detail."), std::string::npos) << help;
  EXPECT_NE(help.find("  --steer                an objective\n"), std::string::npos) << help;
  EXPECT_NE(help.find("  -o                     the format (default text)\n"), std::string::npos) << help;
  EXPECT_EQ(help.find("--watch"), std::string::npos) << help;
}

TEST(CommandLine, FindsTheCommandThatWasMeant) {
  const std::vector<Command> commands = {MakeCommand("generate", {}), MakeCommand("drift", {})};
  EXPECT_EQ(Closest("genrate", commands), "generate");
  EXPECT_EQ(Closest("dirft", commands), "drift");
  EXPECT_EQ(Closest("elephant", commands), "");
}

TEST(CommandLine, UsageErrorsAreTheirOwnKind) {
  EXPECT_TRUE(IsUsageError(UsageError("x")));
  EXPECT_TRUE(IsUsageError(AsUsageError(absl::NotFoundError("x"))));
  EXPECT_FALSE(IsUsageError(absl::InvalidArgumentError("x")));
  EXPECT_TRUE(AsUsageError(absl::OkStatus()).ok());
}

}  // namespace
}  // namespace trimtab
