#include "steering/methods/fit_warnings.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace trimtab {
namespace {

// A fit about which there is nothing to say.
FitReport GoodReport() {
  return {.validation = {.pairs = 10, .margin_gain = 0.4f, .ci_low = 0.2f},
          .held_out = {.pairs = 30, .margin_gain = 0.3f, .ci_low = 0.2f, .ci_high = 0.4f},
          .random_gain_max = 0.1f,
          .random_directions = 20};
}

std::vector<LayerDirection> GoodDirections() {
  return {{.layer = 3, .cosine_to_mean = 0.9f, .bootstrap_stability = 0.9f}};
}

std::vector<std::string> Warnings(const FitReport& report, const std::vector<LayerDirection>& directions) {
  return FitWarnings({.report = report, .directions = directions, .training = 40, .has_neutral_text = true});
}

bool Says(const std::vector<std::string>& warnings, std::string_view what) {
  return std::any_of(warnings.begin(), warnings.end(),
                     [&](const std::string& warning) { return warning.find(what) != std::string::npos; });
}

TEST(FitWarningsTest, AGoodFitHasNone) {
  EXPECT_TRUE(Warnings(GoodReport(), GoodDirections()).empty());
  EXPECT_TRUE(DisagreementWarnings(GoodDirections()).empty());
}

TEST(FitWarningsTest, DirectionsThatDisagree) {
  std::vector<LayerDirection> directions = GoodDirections();
  directions[0].bootstrap_stability = 0.69f;
  EXPECT_TRUE(Says(Warnings(GoodReport(), directions), "stability below 0.7"));
  directions[0].cosine_to_mean = 0.49f;
  EXPECT_TRUE(Says(DisagreementWarnings(directions), "cosine to their mean below 0.5"));
}

TEST(FitWarningsTest, PairsThatGoTheWrongWay) {
  FitReport report = GoodReport();
  report.validation.anti_steerable_share = 0.5f;
  EXPECT_TRUE(Warnings(report, GoodDirections()).empty()) << "the held-out pairs are what counts";
  report.held_out.anti_steerable_share = 0.39f;
  EXPECT_TRUE(Warnings(report, GoodDirections()).empty());
  report.held_out.anti_steerable_share = 0.4f;
  EXPECT_TRUE(Says(Warnings(report, GoodDirections()), "40 % of the 30 held-out pairs against the objective"));
  report.held_out = {};
  EXPECT_TRUE(Says(Warnings(report, GoodDirections()), "50 % of the 10 validation pairs against the objective"));
}

TEST(FitWarningsTest, EffectsThatProveNothing) {
  FitReport report = GoodReport();
  report.held_out.ci_low = -0.1f;
  EXPECT_TRUE(Says(Warnings(report, GoodDirections()), "not distinguishable from zero"));
  report = GoodReport();
  report.random_gain_max = 0.31f;
  EXPECT_TRUE(Says(Warnings(report, GoodDirections()), "random directions does as well"));
  report = GoodReport();
  report.held_out.pairs = 0;
  EXPECT_TRUE(Says(Warnings(report, GoodDirections()), "No held-out pairs"));
  report = GoodReport();
  report.validation.margin_gain = 0;
  EXPECT_TRUE(Says(Warnings(report, GoodDirections()), "did not raise the margin"));
}

TEST(FitWarningsTest, WhatHappenedOnTheWay) {
  const FitReport report = GoodReport();
  const std::vector<LayerDirection> directions = GoodDirections();
  const std::vector<std::string> warnings = FitWarnings({.report = report,
                                                         .directions = directions,
                                                         .left_out = 3,
                                                         .training = 19,
                                                         .reversed = true,
                                                         .over_budget = true,
                                                         .validated_on_training = true,
                                                         .has_neutral_text = true});
  for (const char* what : {"turned round", "training pairs themselves", "within max_kl", "3 pairs could not be used",
                           "Only 19 training pairs"}) {
    EXPECT_TRUE(Says(warnings, what)) << what;
  }
  EXPECT_TRUE(Says(FitWarnings({.report = report, .directions = directions, .training = 40}), "no neutral text"));
}

}  // namespace
}  // namespace trimtab
