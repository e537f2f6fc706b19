#include "server/engine/step_cost.h"

#include <gtest/gtest.h>

namespace trimtab {
namespace {

TEST(StepCostTest, StartsCarefully) {
  StepCost cost;
  EXPECT_EQ(cost.PrefillRows(0, absl::Milliseconds(50)), 2 * StepCost::kLeastPrefill);
  cost.Observe(8, 0, absl::Milliseconds(20));
  EXPECT_EQ(cost.PrefillRows(8, absl::Milliseconds(50)), 2 * StepCost::kLeastPrefill);
}

TEST(StepCostTest, FindsTheLineThroughDecodingAndPrefillingSteps) {
  // 10 ms and a quarter of a millisecond per row.
  const auto duration = [](int64_t rows) { return absl::Milliseconds(10) + absl::Microseconds(250) * rows; };
  StepCost cost;
  for (int i = 0; i < 100; ++i) {
    cost.Observe(8, 0, duration(8));
    cost.Observe(8, 100 + i % 3, duration(108 + i % 3));
  }
  // 50 ms = 10 + 0.25 * 160.
  EXPECT_NEAR(cost.PrefillRows(8, absl::Milliseconds(50)), 152, 3);
  EXPECT_NEAR(cost.PrefillRows(60, absl::Milliseconds(50)), 100, 3);
  EXPECT_EQ(cost.PrefillRows(8, absl::Milliseconds(5)), StepCost::kLeastPrefill);
}

TEST(StepCostTest, SmallPiecesDoNotMakePromptsLookDear) {
  // Steps of 40 ms that 32 more rows prolong by 2 ms only: pieces must grow though the mean cost per row is high.
  StepCost cost;
  for (int i = 0; i < 50; ++i) {
    cost.Observe(16, 0, absl::Milliseconds(40));
    cost.Observe(16, 32, absl::Milliseconds(42));
  }
  EXPECT_GT(cost.PrefillRows(16, absl::Milliseconds(60)), 64);
}

TEST(StepCostTest, FollowsAChangeAndBearsOddDurations) {
  StepCost cost;
  cost.Observe(0, 500, absl::Seconds(5));  // the first step, everything cold
  for (int i = 0; i < 60; ++i) cost.Observe(0, 500, absl::Milliseconds(100));
  EXPECT_NEAR(cost.PrefillRows(0, absl::Milliseconds(50)), 250, 25);
  for (int i = 0; i < 60; ++i) cost.Observe(4, 500, absl::Milliseconds(-1));  // the clock was set back
  EXPECT_GE(cost.PrefillRows(4, absl::Milliseconds(50)), StepCost::kLeastPrefill);
  StepCost zero;
  zero.Observe(1, 1, absl::ZeroDuration());
  EXPECT_GE(zero.PrefillRows(1, absl::Milliseconds(50)), StepCost::kLeastPrefill);
}

}  // namespace
}  // namespace trimtab
