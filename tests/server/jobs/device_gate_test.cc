#include "server/jobs/device_gate.h"

#include <gtest/gtest.h>

#include <thread>

namespace trimtab {
namespace {

constexpr DeviceGateConfig kConfig{
    .slice = absl::Milliseconds(50), .max_wait = absl::Nanoseconds(20), .look = absl::Nanoseconds(2)};

TEST(DeviceGateTest, DoesNotLookBeforeASliceIsUsed) {
  ManualClock clock;
  int looks = 0;
  DeviceGate gate(
      [&] {
        ++looks;
        return true;
      },
      kConfig, clock);
  gate.Pass();
  clock.Advance(absl::Milliseconds(49));
  gate.Pass();
  EXPECT_EQ(looks, 0);
  clock.Advance(absl::Milliseconds(1));
  gate.Pass();
  EXPECT_EQ(looks, 1);
  // The next slice has begun.
  clock.Advance(absl::Milliseconds(49));
  gate.Pass();
  EXPECT_EQ(looks, 1);
}

TEST(DeviceGateTest, WaitsUntilTheEngineIsIdle) {
  ManualClock clock;
  int looks = 0;
  DeviceGate gate([&] { return ++looks == 4; }, kConfig, clock);
  gate.Pass();
  clock.Advance(absl::Milliseconds(50));
  gate.Pass();
  EXPECT_EQ(looks, 4);
}

TEST(DeviceGateTest, ABusyEngineCannotStopAJob) {
  ManualClock clock;
  int looks = 0;
  DeviceGate gate(
      [&] {
        ++looks;
        return false;
      },
      kConfig, clock);
  gate.Pass();
  for (int slices = 1; slices <= 3; ++slices) {
    clock.Advance(absl::Milliseconds(50));
    gate.Pass();
    EXPECT_EQ(looks, slices * 10);  // max_wait / look
  }
}

TEST(DeviceGateTest, WorkersHaveSlicesOfTheirOwn) {
  ManualClock clock;
  int looks = 0;
  DeviceGate gate(
      [&] {
        ++looks;
        return true;
      },
      kConfig, clock);
  gate.Pass();
  clock.Advance(absl::Milliseconds(50));
  std::thread([&] { gate.Pass(); }).join();
  EXPECT_EQ(looks, 0);
  gate.Pass();
  EXPECT_EQ(looks, 1);
}

}  // namespace
}  // namespace trimtab
