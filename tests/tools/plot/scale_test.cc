#include "tools/plot/scale.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace trimtab {
namespace {

std::vector<std::string> Labels(const Axis& axis, const std::vector<double>& values, int count) {
  std::vector<std::string> labels;
  for (const Tick& tick : Scale(axis, values).Ticks(count)) labels.push_back(tick.label);
  return labels;
}

using Strings = std::vector<std::string>;

TEST(ScaleTest, HasRoomAroundTheData) {
  const Scale scale({}, {2, 12, 7});
  EXPECT_DOUBLE_EQ(scale.low(), 1.5);
  EXPECT_DOUBLE_EQ(scale.high(), 12.5);
  EXPECT_DOUBLE_EQ(scale.Fraction(7), 0.5);
}

TEST(ScaleTest, KeepsTheLimitsThatAreSet) {
  const Scale scale({.low = 0, .high = 4}, {1, 100});
  EXPECT_EQ(scale.Fraction(0), 0);
  EXPECT_EQ(scale.Fraction(4), 1);
  EXPECT_FALSE(scale.Contains(100));
}

TEST(ScaleTest, ASingleValueGetsAScaleToo) {
  for (double value : {0.0, -3.0, 1e-4}) {
    const Scale scale({}, {value, value});
    EXPECT_LT(scale.low(), value);
    EXPECT_GT(scale.high(), value);
    EXPECT_GE(scale.Ticks(5).size(), 2u);
  }
}

TEST(ScaleTest, TicksAreRoundNumbersWithTheDecimalsTheyNeed) {
  EXPECT_EQ(Labels({.low = 0, .high = 1}, {}, 5), (Strings{"0.0", "0.2", "0.4", "0.6", "0.8", "1.0"}));
  EXPECT_EQ(Labels({.low = -0.03, .high = 0.03}, {}, 3), (Strings{"-0.02", "0.00", "0.02"}));
  EXPECT_EQ(Labels({.low = 0, .high = 40}, {}, 4), (Strings{"0", "10", "20", "30", "40"}));
  EXPECT_EQ(Labels({.low = 0, .high = 2e6}, {}, 2), (Strings{"0", "1e+06", "2e+06"}));
}

TEST(ScaleTest, ALogarithmicScaleHasEqualFactors) {
  const Scale scale({.low = 1, .high = 100, .logarithmic = true}, {});
  EXPECT_DOUBLE_EQ(scale.Fraction(10), 0.5);
  EXPECT_EQ(Labels({.low = 1, .high = 20, .logarithmic = true}, {}, 5), (Strings{"1", "2", "5", "10", "20"}));
}

TEST(ScaleTest, ALogarithmicScaleWithinOneStepStillHasTicks) {
  EXPECT_GE(Scale({.low = 2.1, .high = 4.9, .logarithmic = true}, {}).Ticks(4).size(), 2u);
}

}  // namespace
}  // namespace trimtab
