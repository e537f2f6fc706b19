#include "models/kernels/thread_team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace trimtab {
namespace {

// Sizes beyond the machine's cores too: a worker that does not run must not be waited for.
class ThreadTeamTest : public testing::TestWithParam<int> {};

TEST_P(ThreadTeamTest, EveryTaskRunsOnceInManySections) {
  ThreadTeam team(GetParam());
  EXPECT_EQ(team.size(), GetParam());
  for (int64_t section = 0; section < 3000; ++section) {
    const int64_t tasks = section % 37;
    std::vector<int64_t> runs(static_cast<size_t>(tasks), 0);
    team.Run(tasks, [&](int64_t task) { runs[static_cast<size_t>(task)] += section + 1; });
    for (int64_t count : runs) ASSERT_EQ(count, section + 1);
  }
}

TEST_P(ThreadTeamTest, TheCallerSeesWhatTasksWrote) {
  ThreadTeam team(GetParam());
  std::vector<int64_t> values(1000, 0);
  for (int round = 0; round < 200; ++round) {
    team.Run(10, [&](int64_t task) {
      for (int64_t i = task * 100; i < (task + 1) * 100; ++i) ++values[static_cast<size_t>(i)];
    });
    int64_t sum = 0;
    for (int64_t value : values) sum += value;
    ASSERT_EQ(sum, 1000 * (round + 1));
  }
}

TEST_P(ThreadTeamTest, WorkersThatFellAsleepWakeUp) {
  ThreadTeam team(GetParam());
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> threads{0};
    // Nobody gets on until every member has taken a task.
    team.Run(GetParam(), [&](int64_t) {
      ++threads;
      while (threads < GetParam()) std::this_thread::yield();
    });
    EXPECT_EQ(threads, GetParam());
    // Long enough for workers to sleep: the clock of this test is their own.
    const auto begin = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(1)) std::this_thread::yield();
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, ThreadTeamTest, testing::Values(1, 2, 3, 8));

TEST(ScopedTeamTest, ParallelTasksUsesTheInnermostTeam) {
  ThreadTeam outer(2), inner(3);
  const int without = ParallelThreads();
  {
    const ScopedTeam scope(&outer);
    EXPECT_EQ(ParallelThreads(), 2);
    {
      const ScopedTeam nested(&inner);
      EXPECT_EQ(ParallelThreads(), 3);
    }
    EXPECT_EQ(ParallelThreads(), 2);
    std::vector<int> runs(50, 0);
    ParallelTasks(50, [&](int64_t task) { ++runs[static_cast<size_t>(task)]; });
    EXPECT_EQ(runs, std::vector<int>(50, 1));
  }
  EXPECT_EQ(ParallelThreads(), without);
  std::vector<int> runs(50, 0);
  ParallelTasks(50, [&](int64_t task) { ++runs[static_cast<size_t>(task)]; });
  EXPECT_EQ(runs, std::vector<int>(50, 1));
}

}  // namespace
}  // namespace trimtab
