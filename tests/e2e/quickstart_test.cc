// The quickstart as a user runs it, with --quick: it ends well, and each section shows what the server said.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <string>

namespace trimtab {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

struct Result {
  int status = -1;
  std::string output;  // both streams
};

Result Quickstart(const std::string& arguments) {
  Result result;
  FILE* const pipe = popen(("tools/quickstart/quickstart " + arguments + " 2>&1").c_str(), "r");
  char buffer[4096];
  for (size_t size; (size = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) result.output.append(buffer, size);
  const int status = pclose(pipe);
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return result;
}

// The text from one heading to the next.
std::string Section(const std::string& output, const std::string& heading, const std::string& next) {
  const size_t begin = output.find("\n" + heading), end = output.find("\n" + next);
  EXPECT_NE(begin, std::string::npos) << heading;
  EXPECT_NE(end, std::string::npos) << next;
  return begin < end ? output.substr(begin, end - begin) : "";
}

TEST(QuickstartTest, ShowsEverySection) {
  const Result run = Quickstart("--quick");
  ASSERT_EQ(run.status, 0) << run.output;
  const std::string& output = run.output;
  EXPECT_THAT(
      Section(output, "1. A server", "2. An objective"),
      ContainsRegex("smollm2.*gRPC on 127\\.0\\.0\\.1:[0-9]+, metrics on http://127\\.0\\.0\\.1:[0-9]+/metrics"));
  EXPECT_THAT(Section(output, "2. An objective", "3. Answers"),
              ContainsRegex("16 pairs to learn from, 12 kept apart.*Built in .*drift report took"));
  const std::string answers = Section(output, "3. Answers", "4. The effect");
  EXPECT_THAT(answers, ContainsRegex("> [A-Z].*strength 0\\.[0-9]+: half the recommended.*unsteered.*: recommended"
                                     ".*unsteered.*: half as much again"));
  EXPECT_THAT(Section(output, "4. The effect", "5. The audit"), ContainsRegex("held-out.*\\[.*, .*\\].*12 pairs"));
  EXPECT_THAT(Section(output, "5. The audit", "6. Drift"), ContainsRegex("\\[\\++\\*?\\]|\\[-+\\*?\\]"));
  EXPECT_THAT(Section(output, "6. Drift", "7. Metrics"), ContainsRegex("24 questions|24"));
  EXPECT_THAT(Section(output, "7. Metrics", "Time"),
              ContainsRegex("trimtab_generation_tokens_total\\{.*steered=\"true\"\\} [1-9]"));
  EXPECT_THAT(Section(output, "Time", "What next"),
              ContainsRegex("in all: server start .*, fit .*, drift report .*, answers "));
  EXPECT_THAT(output, ContainsRegex("trimctl -- --address=127\\.0\\.0\\.1:[0-9]+ generate .*--steer cheerful=0\\."));
  EXPECT_THAT(output, HasSubstr("audit cheerful --html audit.html"));
  EXPECT_THAT(output, Not(HasSubstr("until Ctrl-C"))) << "only with --keep";
  EXPECT_THAT(output, Not(HasSubstr("\x1b["))) << "no colours in a pipe";
}

// A model that is fetched only when it is asked for, and that has pairs of its own.
TEST(QuickstartTest, SaysHowToFetchABaseModelAndWhatItIsSteeredBy) {
  const Result run = Quickstart("--model gemma3-270m --objective=formal");
  EXPECT_EQ(run.status, 1);
  EXPECT_THAT(run.output, HasSubstr(std::filesystem::exists("../gemma3_270m/gemma-3-270m-q4_k_m.gguf")
                                        ? "--objective must be \"hopeful\" with --model gemma3-270m"
                                        : "./bazelw run //:quickstart -- --model gemma3-270m"));
}

TEST(QuickstartTest, ExplainsItsFlags) {
  const Result help = Quickstart("--help");
  for (const char* flag : {"--model (", "--objective (", "--keep (", "--quick ("})
    EXPECT_THAT(help.output, HasSubstr(flag));
  const Result wrong = Quickstart("--objective=gloomy");
  EXPECT_EQ(wrong.status, 1);
  EXPECT_THAT(wrong.output, HasSubstr("\"cheerful\" or \"formal\""));
  const Result unknown = Quickstart("--model=llama");
  EXPECT_EQ(unknown.status, 1);
  EXPECT_THAT(unknown.output, HasSubstr("\"smollm2\" or \"gemma3-270m\""));
}

}  // namespace
}  // namespace trimtab
