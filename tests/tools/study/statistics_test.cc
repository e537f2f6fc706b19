#include "tools/study/statistics.h"

#include <gtest/gtest.h>

#include <vector>

namespace trimtab {
namespace {

TEST(StatisticsTest, AMeanWithItsTwoIntervals) {
  // Mean 3, standard deviation sqrt(2.5), five values: 3 +- 2.7764 * sqrt(2.5 / 5).
  const Estimate estimate = EstimateMean({1, 2, 3, 4, 5}, 1);
  EXPECT_EQ(estimate.count, 5);
  EXPECT_DOUBLE_EQ(estimate.mean, 3);
  EXPECT_NEAR(estimate.low, 3 - 1.9632, 0.01);
  EXPECT_NEAR(estimate.high, 3 + 1.9632, 0.01);
  // The bootstrap of so few values is narrower: its standard error is sqrt(2 / 5), 0.632.
  EXPECT_NEAR(estimate.bootstrap_low, 3 - 1.24, 0.2);
  EXPECT_NEAR(estimate.bootstrap_high, 3 + 1.24, 0.2);
}

TEST(StatisticsTest, ConstantValuesHaveNoSpread) {
  const Estimate estimate = EstimateMean({0.5, 0.5, 0.5}, 1);
  EXPECT_DOUBLE_EQ(estimate.low, 0.5);
  EXPECT_DOUBLE_EQ(estimate.bootstrap_high, 0.5);
  EXPECT_EQ(EstimateMean({}, 1).count, 0);
}

TEST(StatisticsTest, TheSameSeedGivesTheSameBootstrap) {
  const std::vector<double> values = {0.3, -1, 2, 0.7, 0.1, 4};
  EXPECT_EQ(EstimateMean(values, 3).bootstrap_low, EstimateMean(values, 3).bootstrap_low);
  EXPECT_NE(EstimateMean(values, 3).bootstrap_low, EstimateMean(values, 4).bootstrap_low);
}

TEST(StatisticsTest, DifferencesAndHits) {
  EXPECT_EQ(Differences({3, 1}, {1, 2}), (std::vector<double>{2, -1}));
  EXPECT_EQ(Hits({0.1, 0, -2}), (std::vector<double>{1, 0, 0}));
}

TEST(StatisticsTest, RepeatedShareCountsNGramsThatWereThereBefore) {
  EXPECT_EQ(RepeatedShare({1, 2, 3, 4, 5}), 0);
  EXPECT_EQ(RepeatedShare({1, 2}), 0);
  // 121, 212, 121, 212, 121: two different ones of five.
  EXPECT_DOUBLE_EQ(RepeatedShare({1, 2, 1, 2, 1, 2, 1}), 0.6);
}

TEST(StatisticsTest, AnEstimateSurvivesJson) {
  const Estimate estimate = EstimateMean({1, 2, 4}, 1);
  const auto read = nlohmann::json::parse(nlohmann::json(estimate).dump()).get<Estimate>();
  EXPECT_EQ(read.mean, estimate.mean);
  EXPECT_EQ(read.bootstrap_low, estimate.bootstrap_low);
}

}  // namespace
}  // namespace trimtab
