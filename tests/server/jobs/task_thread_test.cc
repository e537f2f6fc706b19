#include "server/jobs/task_thread.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"

namespace trimtab {
namespace {

using ::testing::ElementsAre;

TEST(TaskThreadTest, RunsTasksInOrderOnItsThread) {
  const RealClock clock;
  TaskThread thread(clock);
  std::vector<int> order;
  std::thread::id first, second;
  thread.Post([&] {
    order.push_back(1);
    first = std::this_thread::get_id();
  });
  const absl::Status status = thread.Run([&] {
    order.push_back(2);
    second = std::this_thread::get_id();
    // On the thread itself work runs at once instead of waiting for itself.
    return thread.Run([] { return absl::AbortedError("result"); });
  });
  EXPECT_EQ(status, absl::AbortedError("result"));
  EXPECT_THAT(order, ElementsAre(1, 2));
  EXPECT_EQ(first, second);
  EXPECT_NE(first, std::this_thread::get_id());
}

TEST(TaskThreadTest, LaterTasksRunInOrderOfTheirTime) {
  const RealClock clock;
  TaskThread thread(clock);
  std::vector<int> order;
  absl::Notification done;
  const absl::Time now = clock.Now();
  thread.PostAt(now + absl::Milliseconds(3), [&] {
    order.push_back(3);
    done.Notify();
  });
  thread.PostAt(now + absl::Milliseconds(1), [&] { order.push_back(2); });
  thread.PostAt(now - absl::Hours(1), [&] { order.push_back(1); });
  done.WaitForNotification();
  EXPECT_THAT(order, ElementsAre(1, 2, 3));
}

TEST(TaskThreadTest, StopRunsWhatIsDueAndDropsTheRest) {
  const RealClock clock;
  TaskThread thread(clock);
  int ran = 0;
  for (int i = 0; i < 100; ++i) thread.Post([&] { ++ran; });
  thread.PostAt(absl::InfiniteFuture(), [&] { ran = -1000; });
  thread.Stop();
  thread.Stop();
  EXPECT_EQ(ran, 100);
  thread.Post([&] { ran = -1; });
  EXPECT_TRUE(thread
                  .Run([&] {
                    ++ran;
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(ran, 101);
}

}  // namespace
}  // namespace trimtab
