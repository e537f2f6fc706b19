#include "server/rpc/executor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "absl/synchronization/notification.h"
#include "server/base/error.h"

namespace trimtab {
namespace {

TEST(Executor, RunsEverythingBeforeItEnds) {
  std::atomic<int> ran = 0;
  {
    Executor executor(3, 1000);
    for (int i = 0; i < 500; ++i) ASSERT_TRUE(executor.Post([&] { ++ran; }).ok());
  }
  EXPECT_EQ(ran, 500);
}

TEST(Executor, OneThreadKeepsTheOrder) {
  std::vector<int> order;
  {
    Executor executor(1, 100);
    for (int i = 0; i < 50; ++i) executor.PostAlways([&order, i] { order.push_back(i); });
  }
  for (int i = 0; i < 50; ++i) EXPECT_EQ(order[i], i);
}

TEST(Executor, RefusesBeyondItsQueueButTakesContinuations) {
  absl::Notification started, release;
  std::atomic<int> ran = 0;
  {
    Executor executor(1, 2);
    ASSERT_TRUE(executor
                    .Post([&] {
                      started.Notify();
                      release.WaitForNotification();
                    })
                    .ok());
    started.WaitForNotification();
    EXPECT_TRUE(executor.Post([&] { ++ran; }).ok());
    EXPECT_TRUE(executor.Post([&] { ++ran; }).ok());
    const absl::Status full = executor.Post([&] { ++ran; });
    EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(GetErrorDetail(full).reason, "QUEUE_FULL");
    EXPECT_TRUE(GetErrorDetail(full).retry_after.has_value());
    executor.PostAlways([&] { ++ran; });
    release.Notify();
  }
  EXPECT_EQ(ran, 3);
}

}  // namespace
}  // namespace trimtab
