// Kills a process in the middle of a job and checks that the next one goes on where it was.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "server/base/clock.h"
#include "server/registry/sqlite_registry.h"
#include "tests/server/registry/child_process.h"
#include "tests/server/registry/records.h"

namespace trimtab {
namespace {

using ::testing::HasSubstr;
using State = JobRecord::State;

constexpr char kChild[] = "tests/server/jobs/job_child";
constexpr int kSteps = 40;

class JobCrashTest : public testing::Test {
 protected:
  void Create(std::string_view request) {
    JobRecord job = MakeDriftJob("1");
    job.request = std::string(request);
    ASSERT_TRUE((*SqliteRegistry::Open(path_, clock_))->CreateJob(job).ok());
  }
  JobRecord Stored() { return *(*SqliteRegistry::Open(path_, clock_))->GetJob("operations/1"); }

  const RealClock clock_;
  const std::string path_ = NewRegistryPath(
      testing::TempDir(), testing::UnitTest::GetInstance()->current_test_info()->name() + std::string(".db"));
};

TEST_F(JobCrashTest, AKilledJobGoesOnWhereItWas) {
  Create("work");
  std::set<std::string> saved;
  int repeated = 0;
  const auto take = [&](const std::string& line) {
    if (line.starts_with("saved") && !saved.insert(line).second) ++repeated;
  };
  // Four servers die at different points; four crashes are still forgiven.
  for (int server = 1; server <= 4; ++server) {
    SCOPED_TRACE(server);
    ChildProcess child(kChild, {path_});
    ASSERT_EQ(child.Line(), absl::StrCat("start ", server));
    for (int steps = 0; steps < 5 + server; ++steps) take(child.Line());
    child.Kill();
    for (std::string line = child.Line(); !line.empty(); line = child.Line()) take(line);
    EXPECT_EQ(Stored().state, State::kRunning);
    EXPECT_EQ(Stored().attempts, server);
  }
  EXPECT_GE(saved.size(), 26u);
  ChildProcess last(kChild, {path_});
  EXPECT_EQ(last.Line(), "start 5");
  std::string line;
  while ((line = last.Line()) != "ended") {
    ASSERT_FALSE(line.empty()) << "the child ended early";
    take(line);
  }
  last.Join();
  // Each server may have saved one step more than it could tell.
  EXPECT_GE(static_cast<int>(saved.size()), kSteps - 4);
  EXPECT_EQ(repeated, 0);
  const JobRecord end = Stored();
  EXPECT_EQ(end.state, State::kSucceeded);
  EXPECT_EQ(end.metadata, std::to_string(kSteps));
}

TEST_F(JobCrashTest, AJobThatKillsServersIsGivenUp) {
  Create("die");
  for (int server = 1; server <= 5; ++server) {
    ChildProcess child(kChild, {path_});
    EXPECT_EQ(child.Line(), absl::StrCat("start ", server));
    EXPECT_EQ(child.Line(), "");
    child.Join();
  }
  ChildProcess last(kChild, {path_});
  EXPECT_EQ(last.Line(), "ended");
  last.Join();
  const JobRecord end = Stored();
  EXPECT_EQ(end.state, State::kFailed);
  EXPECT_EQ(end.attempts, 5);
  EXPECT_THAT(end.error, HasSubstr("started 5 times"));
}

}  // namespace
}  // namespace trimtab
