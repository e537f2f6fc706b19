#include "models/layers/rope.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace trimtab {
namespace {

TEST(RopeTest, PlainFrequencies) {
  const std::vector<double> frequencies = RopeFrequencies({.base = 10000}, 8);
  ASSERT_EQ(frequencies.size(), 4u);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(frequencies[i], std::pow(10000, -i / 4.0), 1e-12);
}

TEST(RopeTest, LinearScalingAndFactorsDivide) {
  const std::vector<double> plain = RopeFrequencies({.base = 500}, 4);
  const std::vector<double> linear =
      RopeFrequencies({.base = 500, .scaling = RopeSpec::Scaling::kLinear, .factor = 2}, 4);
  EXPECT_DOUBLE_EQ(linear[1], plain[1] / 2);
  EXPECT_DOUBLE_EQ(RopeFrequencies({.base = 500}, 4, {1, 8})[1], plain[1] / 8);
}

TEST(RopeTest, Llama3LeavesFastPairsAndDividesSlowOnes) {
  const RopeSpec spec{.base = 500000,
                      .scaling = RopeSpec::Scaling::kLlama3,
                      .factor = 8,
                      .low_frequency_factor = 1,
                      .high_frequency_factor = 4,
                      .original_context = 8192};
  const std::vector<double> plain = RopeFrequencies({.base = 500000}, 128), scaled = RopeFrequencies(spec, 128);
  for (size_t i = 0; i < plain.size(); ++i) {
    const double wavelength = 2 * std::numbers::pi / plain[i];
    if (wavelength < 8192.0 / 4) {
      EXPECT_DOUBLE_EQ(scaled[i], plain[i]);
    } else if (wavelength > 8192.0) {
      EXPECT_DOUBLE_EQ(scaled[i], plain[i] / 8);
    } else {
      EXPECT_LT(scaled[i], plain[i]);
      EXPECT_GT(scaled[i], plain[i] / 8);
    }
  }
}

TEST(RopeTest, TableHoldsCosinesAndSinesByPosition) {
  const RopeTable table({1.0, 0.25});
  const auto [cos, sin] = table.At(at::tensor({int64_t{7}, int64_t{0}}));
  EXPECT_NEAR(cos[0][1].item<float>(), std::cos(7 * 0.25), 1e-6);
  EXPECT_NEAR(sin[0][0].item<float>(), std::sin(7.0), 1e-6);
  EXPECT_EQ(cos[1][0].item<float>(), 1);
  EXPECT_EQ(sin[1][1].item<float>(), 0);
}

}  // namespace
}  // namespace trimtab
