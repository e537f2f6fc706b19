#include "steering/drift/drift_stats.h"

#include <gtest/gtest.h>

#include <cmath>

namespace trimtab {
namespace {

std::vector<float> Logs(std::vector<double> probabilities) {
  std::vector<float> logs;
  for (double p : probabilities) logs.push_back(static_cast<float>(std::log(p)));
  return logs;
}

ChoiceComparison Item(bool right_before, bool right_after) {
  return {0, right_before ? Logs({.6, .2}) : Logs({.2, .6}), right_after ? Logs({.6, .2}) : Logs({.2, .6})};
}

TEST(McNemar, MatchesKnownValues) {
  EXPECT_DOUBLE_EQ(McNemarP(0, 0), 1);
  EXPECT_DOUBLE_EQ(McNemarP(3, 3), 1);
  // scipy.stats.binomtest(2, 12).pvalue and binomtest(0, 6).pvalue
  EXPECT_NEAR(McNemarP(2, 10), 0.03857421875, 1e-12);
  EXPECT_NEAR(McNemarP(6, 0), 0.03125, 1e-12);
  EXPECT_DOUBLE_EQ(McNemarP(10, 2), McNemarP(2, 10));
  // (|5 - 25| - 1)^2 / 30 = 12.0333; scipy.stats.chi2.sf(12.033333, 1)
  EXPECT_NEAR(McNemarP(5, 25), 0.00052257540, 1e-9);
}

TEST(CompareChoices, CountsFlipsAndTheirInterval) {
  std::vector<ChoiceComparison> items;
  for (int i = 0; i < 50; ++i) items.push_back(Item(true, true));
  for (int i = 0; i < 8; ++i) items.push_back(Item(true, false));
  for (int i = 0; i < 2; ++i) items.push_back(Item(false, true));
  for (int i = 0; i < 40; ++i) items.push_back(Item(false, false));
  const ChoiceStats stats = CompareChoices(items);
  EXPECT_EQ(stats.items, 100);
  EXPECT_DOUBLE_EQ(stats.baseline_accuracy, .58);
  EXPECT_DOUBLE_EQ(stats.accuracy, .52);
  EXPECT_DOUBLE_EQ(stats.delta, -.06);
  EXPECT_EQ(stats.right_to_wrong, 8);
  EXPECT_EQ(stats.wrong_to_right, 2);
  EXPECT_DOUBLE_EQ(stats.flip_rate, .1);
  EXPECT_DOUBLE_EQ(stats.choice_change_rate, .1);
  const double half = 1.959963984540054 * std::sqrt(10 - 36.0 / 100) / 100;
  EXPECT_NEAR(stats.ci_low, -.06 - half, 1e-12);
  EXPECT_NEAR(stats.ci_high, -.06 + half, 1e-12);
  EXPECT_NEAR(stats.mcnemar_p, McNemarP(8, 2), 0);
  EXPECT_NEAR(stats.minimum_detectable_delta, 2.8 * std::sqrt(.1 / 100), 1e-12);
  EXPECT_NEAR(stats.baseline_letter_mass, .8, 1e-6);
  EXPECT_DOUBLE_EQ(stats.expected_chance, .5);
}

TEST(CompareChoices, DivergenceSeesWhatAccuracyDoesNot) {
  const ChoiceComparison item{0, Logs({.4, .2, .1, .1}), Logs({.25, .2, .1, .05})};
  const ChoiceStats stats = CompareChoices(std::vector<ChoiceComparison>{item});
  EXPECT_EQ(stats.flip_rate, 0);
  EXPECT_EQ(stats.delta, 0);
  const double expected = .5 * std::log(.5 / (.25 / .6)) + .25 * std::log(.25 / (.2 / .6)) +
                          .125 * std::log(.125 / (.1 / .6)) + .125 * std::log(.125 / (.05 / .6));
  EXPECT_NEAR(stats.mean_kl_choice, expected, 1e-6);
  EXPECT_NEAR(stats.letter_mass, .6, 1e-6);
  EXPECT_NEAR(stats.gold_probability_delta, .25 / .6 - .5, 1e-6);
}

TEST(CompareChoices, ChanceIsRecognised) {
  std::vector<ChoiceComparison> guesses, knows;
  for (int i = 0; i < 100; ++i) {
    guesses.push_back({i % 4, Logs({.4, .2, .2, .2}), Logs({.4, .2, .2, .2})});
    knows.push_back({0, Logs({.4, .2, .2, .2}), Logs({.4, .2, .2, .2})});
  }
  EXPECT_TRUE(CompareChoices(guesses).at_chance);
  EXPECT_FALSE(CompareChoices(knows).at_chance);
}

TEST(CompareChoices, NonFiniteAnswersAreWrongNotFatal) {
  const float bad = std::nanf("");
  const ChoiceComparison item{0, Logs({.7, .2}), {bad, bad}};
  const ChoiceStats stats = CompareChoices(std::vector<ChoiceComparison>{item});
  EXPECT_EQ(stats.right_to_wrong, 1);
  EXPECT_EQ(stats.letter_mass, 0);
  EXPECT_TRUE(std::isfinite(stats.mean_kl_choice));
  EXPECT_EQ(CompareChoices({}).items, 0);
}

TEST(KlWithTail, IsExactForWholeDistributionsAndBoundedForParts) {
  const std::vector<float> p = Logs({.5, .3, .2}), q = Logs({.2, .3, .5});
  const double exact = .5 * std::log(.5 / .2) + .2 * std::log(.2 / .5);
  EXPECT_NEAR(KlWithTail(p, q), exact, 1e-6);
  EXPECT_NEAR(KlWithTail(p, p), 0, 1e-9);
  // Merging outcomes never raises a divergence.
  EXPECT_LE(KlWithTail(Logs({.5, .3}), Logs({.2, .3})), exact + 1e-6);
  EXPECT_LE(KlWithTail(Logs({.5}), Logs({.2})), exact + 1e-6);
  EXPECT_GT(KlWithTail(Logs({.5}), Logs({.2})), 0);
}

TEST(Summarize, MeanAndPercentile) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Summary summary = Summarize(values);
  EXPECT_NEAR(summary.mean, 50.5, 1e-9);
  EXPECT_EQ(summary.p95, 95);
  EXPECT_EQ(Summarize({}).p95, 0);
  EXPECT_EQ(Summarize({3}).p95, 3);
}

}  // namespace
}  // namespace trimtab
