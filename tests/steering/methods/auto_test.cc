#include "steering/methods/auto.h"

#include <algorithm>

#include "server/base/error.h"
#include "tests/steering/methods/fit_fixture.h"
#include "trimtab/methods/v1/auto.pb.h"
#include "trimtab/methods/v1/caa.pb.h"

namespace trimtab {
namespace {

using methods::v1::AutoConfig;

class AutoTest : public FitFixture {
 protected:
  static AutoConfig Of(std::initializer_list<const char*> methods) {
    AutoConfig config;
    config.mutable_fit()->set_random_directions(2);
    for (const char* method : methods) config.add_methods(method);
    return config;
  }
};

TEST_F(AutoTest, TakesTheMethodThatGainsMostOnTheValidationPairs) {
  MemoryJob job;
  const auto fit = Fit("auto", Of({"random", "caa", "margin_gradient"}), input_, job);
  ASSERT_TRUE(fit.ok()) << fit.status();
  const std::vector<MethodTrial>& trials = fit->report.trials;
  ASSERT_EQ(trials.size(), 3u);
  EXPECT_EQ(trials[0].method, "random");
  EXPECT_EQ(trials[2].method, "margin_gradient");
  float best = 0;
  const MethodTrial* chosen = nullptr;
  for (const MethodTrial& trial : trials) {
    EXPECT_TRUE(trial.error.empty()) << trial.error;
    EXPECT_EQ(trial.validation.pairs, 3) << "30 % of ten";
    EXPECT_GT(trial.strength, 0);
    EXPECT_LE(trial.kl, 0.21f);
    EXPECT_NEAR(trial.efficiency, trial.validation.margin_gain / trial.kl, 1e-4 * std::abs(trial.efficiency));
    best = std::max(best, trial.validation.margin_gain);
    if (trial.chosen) {
      EXPECT_EQ(chosen, nullptr);
      chosen = &trial;
    }
  }
  ASSERT_NE(chosen, nullptr);
  EXPECT_GE(chosen->validation.margin_gain, 0.95f * best);
  EXPECT_EQ(fit->vector->spec().method, chosen->method);
  EXPECT_EQ(fit->vector->spec().default_strength, chosen->strength);
  EXPECT_EQ(fit->report.held_out.pairs, 10);
  EXPECT_NE(fit->report.choice.find("\"" + chosen->method + "\" was chosen"), std::string::npos);
  EXPECT_NE(fit->report.choice.find("95 % interval"), std::string::npos) << fit->report.choice;
}

TEST_F(AutoTest, GivesWhatTheChosenMethodGivesAlone) {
  MemoryJob job;
  const auto fit = Fit("auto", Of({"caa"}), input_, job);
  ASSERT_TRUE(fit.ok()) << fit.status();
  methods::v1::CaaConfig config;
  config.mutable_fit()->set_random_directions(2);
  config.mutable_fit()->set_validation_fraction(0.3f);
  MemoryJob other;
  const auto alone = Fit("caa", config, input_, other);
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_EQ(fit->vector->digest(), alone->vector->digest());
  EXPECT_EQ(fit->report.held_out.margin_gain, alone->report.held_out.margin_gain);
  EXPECT_EQ(fit->report.warnings, alone->report.warnings);
}

TEST_F(AutoTest, TriesItsDefaultsAndNeverTheControl) {
  MemoryJob job;
  const auto fit = Fit("auto", Of({}), input_, job);
  ASSERT_TRUE(fit.ok()) << fit.status();
  ASSERT_EQ(fit->report.trials.size(), 6u);
  EXPECT_EQ(fit->report.trials[0].method, "grains");
  for (const MethodTrial& trial : fit->report.trials) EXPECT_NE(trial.method, "random");
}

TEST_F(AutoTest, AMethodThatCannotFitThePairsIsReportedAndPassedOver) {
  for (PreferencePair& pair : input_.pairs) pair.dispreferred.clear();
  for (PreferencePair& pair : input_.held_out_pairs) pair.dispreferred.clear();
  MemoryJob job;
  const auto fit = Fit("auto", Of({"caa", "margin_gradient"}), input_, job);
  ASSERT_TRUE(fit.ok()) << fit.status();
  ASSERT_EQ(fit->report.trials.size(), 2u);
  EXPECT_NE(fit->report.trials[0].error.find("two answers"), std::string::npos);
  EXPECT_TRUE(fit->report.trials[1].chosen);
  EXPECT_EQ(fit->vector->spec().method, "margin_gradient");
  MemoryJob none;
  EXPECT_EQ(GetErrorDetail(Fit("auto", Of({"caa", "mean_diff"}), input_, none).status()).reason, kPairsDegenerate);
}

TEST_F(AutoTest, TheSameDigestAlsoAfterInterruptions) {
  const AutoConfig config = Of({"margin_gradient", "caa"});
  MemoryJob whole;
  const auto fit = Fit("auto", config, input_, whole);
  ASSERT_TRUE(fit.ok()) << fit.status();
  MemoryJob job;
  job.stop_with = absl::UnavailableError("shutting down");
  absl::StatusOr<FitResult> resumed = absl::UnavailableError("");
  int runs = 0;
  while (!resumed.ok() && runs < 200) {
    ++runs;
    job.stop_at = job.checkpoints + 3 + runs;
    resumed = Fit("auto", config, input_, job);
  }
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_GT(runs, 1);
  EXPECT_EQ(resumed->vector->digest(), fit->vector->digest());
  EXPECT_EQ(resumed->report.choice, fit->report.choice);
  EXPECT_EQ(job.saves, whole.saves) << "a saved part was computed again";
}

TEST_F(AutoTest, ProgressNeverFallsAndCancelStops) {
  MemoryJob job;
  ASSERT_TRUE(Fit("auto", Of({"grains", "caa"}), input_, job).ok());
  double fraction = 0;
  int phase = 0;
  for (const JobProgress& report : job.reports) {
    EXPECT_GE(report.fraction, fraction);
    EXPECT_GE(static_cast<int>(report.phase), phase);
    fraction = report.fraction;
    phase = static_cast<int>(report.phase);
  }
  EXPECT_GT(fraction, 0.8);
  MemoryJob stopped;
  stopped.stop_at = 12;
  EXPECT_EQ(Fit("auto", Of({"grains", "caa"}), input_, stopped).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(stopped.checkpoints, 12);
}

TEST_F(AutoTest, EveryViolationIsNamed) {
  AutoConfig config = Of({"caa", "caa", "auto", "nothing"});
  config.mutable_fit()->set_max_kl(-1);
  const ErrorDetail detail = GetErrorDetail(Make("auto", config).status());
  EXPECT_EQ(detail.reason, kFieldInvalid);
  std::vector<std::string> fields;
  for (const FieldViolation& violation : detail.violations) fields.push_back(violation.field);
  EXPECT_EQ(fields, (std::vector<std::string>{"method_config.fit.max_kl", "method_config.methods",
                                              "method_config.methods[2]", "method_config.methods[3]"}));
}

}  // namespace
}  // namespace trimtab
