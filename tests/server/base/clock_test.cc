#include "server/base/clock.h"

#include <gtest/gtest.h>

namespace trimtab {
namespace {

TEST(ClockTest, AManualClockStandsStillUntilMoved) {
  ManualClock clock(absl::FromUnixSeconds(100));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(100));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(100));
  clock.Advance(absl::Milliseconds(1500));
  EXPECT_EQ(clock.Now(), absl::FromUnixMillis(101'500));
}

TEST(ClockTest, TheRealClockIsTheSystems) {
  const absl::Time before = absl::Now();
  const absl::Time now = RealClock().Now();
  EXPECT_LE(before, now);
  EXPECT_LE(now, absl::Now());
}

}  // namespace
}  // namespace trimtab
