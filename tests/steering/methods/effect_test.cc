#include "steering/methods/effect.h"

#include <gtest/gtest.h>

namespace trimtab {
namespace {

// scipy.stats.t.ppf(0.975, n).
TEST(EffectTest, StudentQuantiles) {
  EXPECT_NEAR(StudentT95(1), 12.7062, 1e-3);
  EXPECT_NEAR(StudentT95(3), 3.1824, 1e-3);
  EXPECT_NEAR(StudentT95(4), 2.7764, 3e-2);
  EXPECT_NEAR(StudentT95(10), 2.2281, 1e-3);
  EXPECT_NEAR(StudentT95(60), 2.0003, 1e-4);
}

TEST(EffectTest, SummarizesPairedChanges) {
  const EffectSummary summary = SummarizeEffect({-1, 1, 2, -0.5}, {0.5, 1.5, 3, -0.5});
  EXPECT_EQ(summary.pairs, 4);
  EXPECT_FLOAT_EQ(summary.accuracy_before, 0.5f);
  EXPECT_FLOAT_EQ(summary.accuracy_after, 0.75f);
  EXPECT_FLOAT_EQ(summary.margin_before, 0.375f);
  EXPECT_FLOAT_EQ(summary.margin_gain, 0.75f);
  EXPECT_EQ(summary.anti_steerable_share, 0);
  // Gains 1.5, 0.5, 1, 0: deviation 0.6455, standard error 0.32275.
  EXPECT_NEAR(summary.ci_high - summary.margin_gain, 3.1824 * 0.32275, 1e-3);
  EXPECT_NEAR(summary.margin_gain - summary.ci_low, 3.1824 * 0.32275, 1e-3);
}

TEST(EffectTest, CountsThePairsThatGoTheWrongWay) {
  EXPECT_FLOAT_EQ(SummarizeEffect({0, 0, 0, 0}, {3, -0.1, 0, -2}).anti_steerable_share, 0.5f);
}

TEST(EffectTest, FewPairsHaveNoWidth) {
  EXPECT_EQ(SummarizeEffect({}, {}).pairs, 0);
  const EffectSummary one = SummarizeEffect({1}, {2});
  EXPECT_EQ(one.ci_low, one.ci_high);
}

}  // namespace
}  // namespace trimtab
