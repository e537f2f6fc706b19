#include "server/jobs/progress_tracker.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace trimtab {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1000);

JobProgress At(double fraction, JobPhase phase = JobPhase::kAttributing) {
  return {.phase = phase, .completed = 1, .total = 10, .fraction = fraction};
}

TEST(ProgressTrackerTest, TheFractionNeverFalls) {
  ProgressTracker tracker;
  tracker.Start(kStart);
  EXPECT_EQ(tracker.progress().phase, JobPhase::kQueued);
  tracker.Update(At(0.5), kStart);
  tracker.Update(At(0.3), kStart);
  EXPECT_EQ(tracker.progress().fraction, 0.5);
  tracker.Update(At(std::numeric_limits<double>::quiet_NaN()), kStart);
  EXPECT_EQ(tracker.progress().fraction, 0.5);
  tracker.Update(At(7), kStart);
  EXPECT_EQ(tracker.progress().fraction, 1);
}

TEST(ProgressTrackerTest, TellsANewPhase) {
  ProgressTracker tracker;
  tracker.Start(kStart);
  EXPECT_TRUE(tracker.Update(At(0.1), kStart));
  EXPECT_FALSE(tracker.Update(At(0.2), kStart));
  EXPECT_TRUE(tracker.Update(At(0.2, JobPhase::kMasking), kStart));
}

TEST(ProgressTrackerTest, EstimatesTheRestAtThePaceOfThisRun) {
  ProgressTracker tracker;
  tracker.Start(kStart);
  EXPECT_EQ(tracker.Eta(kStart), absl::InfiniteDuration());
  // Resumed: half of the work was done by an earlier run.
  tracker.Update(At(0.5), kStart + absl::Seconds(10));
  EXPECT_EQ(tracker.Eta(kStart + absl::Seconds(10)), absl::InfiniteDuration());
  tracker.Update(At(0.6), kStart + absl::Seconds(20));
  EXPECT_NEAR(absl::ToDoubleSeconds(tracker.Eta(kStart + absl::Seconds(20))), 40, 1e-6);
  EXPECT_EQ(tracker.Elapsed(kStart + absl::Seconds(20)), absl::Seconds(20));
  tracker.Update(At(1), kStart + absl::Seconds(30));
  EXPECT_EQ(tracker.Eta(kStart + absl::Seconds(30)), absl::ZeroDuration());
}

TEST(ProgressTrackerTest, KeepsTwentyPartialFailures) {
  ProgressTracker tracker;
  tracker.Start(kStart);
  JobProgress report = At(0.1);
  for (int i = 10; i < 40; ++i) report.partial_failures[std::to_string(i)] = "why";
  tracker.Update(report, kStart);
  EXPECT_EQ(tracker.progress().partial_failures.size(), 20u);
  EXPECT_EQ(tracker.progress().partial_failures.rbegin()->first, "29");
}

TEST(ProgressTrackerTest, ANewRunStartsAnew) {
  ProgressTracker tracker;
  tracker.Start(kStart);
  tracker.Update(At(0.9), kStart);
  tracker.Start(kStart);
  EXPECT_EQ(tracker.progress().fraction, 0);
}

}  // namespace
}  // namespace trimtab
