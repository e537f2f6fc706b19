// What every method of the pipeline keeps, and what is particular to the simple ones.
#include <set>
#include <vector>

#include "server/base/error.h"
#include "tests/steering/methods/fit_fixture.h"
#include "trimtab/methods/v1/caa.pb.h"
#include "trimtab/methods/v1/fit.pb.h"
#include "trimtab/methods/v1/margin_gradient.pb.h"
#include "trimtab/methods/v1/mean_diff.pb.h"
#include "trimtab/methods/v1/random.pb.h"

namespace trimtab {
namespace {

using methods::v1::CaaConfig;
using methods::v1::MarginGradientConfig;
using methods::v1::MeanDiffConfig;
using methods::v1::RandomConfig;

constexpr const char* kMethods[] = {"caa", "margin_gradient", "mean_diff", "random"};

double Cosine(const std::vector<float>& x, const std::vector<float>& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(x[i]) * y[i];
  return sum;
}

class MethodsTest : public FitFixture {
 protected:
  // With `fit` in the configuration of whichever method.
  absl::StatusOr<FitResult> FitWith(const std::string& method, const methods::v1::FitOptions& fit,
                                    const FitInput& input, MemoryJob& job) const {
    if (method == "caa") return Fit(method, With<CaaConfig>(fit), input, job);
    if (method == "margin_gradient") return Fit(method, With<MarginGradientConfig>(fit), input, job);
    if (method == "mean_diff") return Fit(method, With<MeanDiffConfig>(fit), input, job);
    return Fit(method, With<RandomConfig>(fit), input, job);
  }
  template <typename Config>
  static Config With(const methods::v1::FitOptions& fit) {
    Config config;
    *config.mutable_fit() = fit;
    return config;
  }
  static methods::v1::FitOptions Fast() {
    methods::v1::FitOptions fit;
    fit.set_random_directions(2);
    return fit;
  }
};

TEST_F(MethodsTest, EveryMethodFitsAndReports) {
  std::set<std::string> digests;
  for (const char* method : kMethods) {
    MemoryJob job;
    const auto fit = FitWith(method, Fast(), input_, job);
    ASSERT_TRUE(fit.ok()) << method << fit.status();
    const SteeringVectorSpec& spec = fit->vector->spec();
    EXPECT_EQ(spec.method, method);
    EXPECT_EQ(spec.site, Site::kBlockOutput);
    EXPECT_EQ(spec.layers.size(), 1u);
    EXPECT_EQ(fit->report.held_out.pairs, 10);
    EXPECT_EQ(fit->report.pair_count, 8);
    EXPECT_LE(fit->report.kl_at_default, 0.21f);
    EXPECT_EQ(fit->report.random_directions, 2);
    EXPECT_TRUE(fit->report.attributions.empty());
    EXPECT_EQ(job.reports.back().completed, 10);
    EXPECT_GT(job.reports.back().fraction, 0.8);
    digests.insert(fit->vector->digest());
  }
  EXPECT_EQ(digests.size(), std::size(kMethods));
}

TEST_F(MethodsTest, TheSameInputGivesTheSameDigestAlsoAfterInterruptions) {
  for (const char* method : kMethods) {
    MemoryJob whole, again;
    const auto fit = FitWith(method, Fast(), input_, whole);
    ASSERT_TRUE(fit.ok()) << method << fit.status();
    EXPECT_EQ((*FitWith(method, Fast(), input_, again)).vector->digest(), fit->vector->digest());
    MemoryJob job;
    job.stop_with = absl::UnavailableError("shutting down");
    absl::StatusOr<FitResult> resumed = absl::UnavailableError("");
    int runs = 0;
    while (!resumed.ok() && runs < 200) {
      ++runs;
      job.stop_at = job.checkpoints + 2 + runs;
      resumed = FitWith(method, Fast(), input_, job);
    }
    ASSERT_TRUE(resumed.ok()) << method << resumed.status();
    EXPECT_GT(runs, 1);
    EXPECT_EQ(resumed->vector->digest(), fit->vector->digest()) << method;
    EXPECT_EQ(job.saves, whole.saves) << method << ": a saved part was computed again";
  }
}

TEST_F(MethodsTest, CancelStopsAtTheNextCheckpoint) {
  for (const char* method : kMethods) {
    MemoryJob job;
    job.stop_at = 3;
    EXPECT_EQ(FitWith(method, Fast(), input_, job).status().code(), absl::StatusCode::kCancelled) << method;
    EXPECT_EQ(job.checkpoints, 3);
  }
}

TEST_F(MethodsTest, DegeneratePairsAreRefused) {
  FitInput same = input_, few = input_;
  for (PreferencePair& pair : same.pairs) pair.dispreferred = pair.preferred;
  few.pairs.resize(3);
  for (const char* method : kMethods) {
    MemoryJob job;
    EXPECT_EQ(GetErrorDetail(FitWith(method, Fast(), same, job).status()).reason, kPairsDegenerate) << method;
    EXPECT_EQ(GetErrorDetail(FitWith(method, Fast(), few, job).status()).reason, kPairsDegenerate) << method;
    methods::v1::FitOptions fit = Fast();
    fit.add_layers(99);
    EXPECT_EQ(GetErrorDetail(FitWith(method, fit, input_, job).status()).reason, kFieldInvalid) << method;
  }
}

TEST_F(MethodsTest, ComparingAnswersNeedsBoth) {
  for (PreferencePair& pair : input_.pairs) pair.dispreferred.clear();
  for (PreferencePair& pair : input_.held_out_pairs) pair.dispreferred.clear();
  MemoryJob job;
  EXPECT_EQ(GetErrorDetail(FitWith("caa", Fast(), input_, job).status()).reason, kPairsDegenerate);
  EXPECT_EQ(GetErrorDetail(FitWith("mean_diff", Fast(), input_, job).status()).reason, kPairsDegenerate);
  const auto gradient = FitWith("margin_gradient", Fast(), input_, job);
  ASSERT_TRUE(gradient.ok()) << gradient.status();
  EXPECT_EQ(gradient->report.objective, "likelihood_mean");
}

TEST_F(MethodsTest, EveryViolationIsNamed) {
  CaaConfig config;
  config.set_position(static_cast<CaaConfig::Position>(9));
  config.mutable_fit()->set_max_kl(0);
  config.mutable_fit()->set_random_directions(101);
  config.mutable_fit()->add_candidate_layers(-1);
  config.mutable_fit()->set_validation_fraction(0.6f);
  config.mutable_fit()->add_candidate_strengths(-1);
  const ErrorDetail detail = GetErrorDetail(Make("caa", config).status());
  EXPECT_EQ(detail.reason, kFieldInvalid);
  std::vector<std::string> fields;
  for (const FieldViolation& violation : detail.violations) fields.push_back(violation.field);
  EXPECT_EQ(fields,
            (std::vector<std::string>{"method_config.position", "method_config.fit.candidate_layers",
                                      "method_config.fit.validation_fraction", "method_config.fit.candidate_strengths",
                                      "method_config.fit.max_kl", "method_config.fit.random_directions"}));
}

// A13.5: with the answers exchanged, everything changes its sign.
TEST_F(MethodsTest, ExchangingTheAnswersTurnsTheDirectionRound) {
  FitInput exchanged = input_;
  for (PreferencePair& pair : exchanged.pairs) std::swap(pair.preferred, pair.dispreferred);
  methods::v1::FitOptions fit = Fast();
  fit.add_layers(1);
  for (const char* method : {"caa", "margin_gradient", "mean_diff"}) {
    MemoryJob job, other;
    const auto a = FitWith(method, fit, input_, job), b = FitWith(method, fit, exchanged, other);
    ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
    // Both may have been turned round by the validation pairs.
    EXPECT_NEAR(std::abs(Cosine(a->vector->spec().layers[0].direction, b->vector->spec().layers[0].direction)), 1, 1e-3)
        << method;
    EXPECT_NEAR(std::abs(a->vector->spec().layers[0].cosine_to_mean), 1, 1e-5) << method;
  }
}

TEST_F(MethodsTest, CaaLooksAtTheChosenPosition) {
  std::set<std::string> digests;
  for (const auto position :
       {CaaConfig::POSITION_ANSWER_LETTER, CaaConfig::POSITION_LAST_RESPONSE, CaaConfig::POSITION_MEAN_RESPONSE}) {
    CaaConfig config = With<CaaConfig>(Fast());
    config.set_position(position);
    MemoryJob job;
    const auto fit = Fit("caa", config, input_, job);
    ASSERT_TRUE(fit.ok()) << fit.status();
    digests.insert(fit->vector->digest());
  }
  EXPECT_EQ(digests.size(), 3u);
  // Answers that differ in one letter: the letter is looked at by itself.
  for (PreferencePair& pair : input_.pairs) pair.preferred = "(A)", pair.dispreferred = "(B)";
  CaaConfig letter = With<CaaConfig>(Fast());
  letter.set_position(CaaConfig::POSITION_ANSWER_LETTER);
  MemoryJob job, other;
  const auto by_itself = Fit("caa", With<CaaConfig>(Fast()), input_, job), asked = Fit("caa", letter, input_, other);
  ASSERT_TRUE(by_itself.ok() && asked.ok()) << by_itself.status() << asked.status();
  EXPECT_EQ(by_itself->vector->digest(), asked->vector->digest());
}

TEST_F(MethodsTest, AnAbsoluteCaaVectorIsTheMeanDifferenceItself) {
  CaaConfig config = With<CaaConfig>(Fast());
  config.mutable_fit()->set_strength_mode(methods::v1::STRENGTH_MODE_ABSOLUTE);
  config.mutable_fit()->set_norm(methods::v1::NORM_NONE);
  config.mutable_fit()->set_apply_to(v1::APPLY_TO_RESPONSE);
  config.mutable_fit()->add_layers(1);
  config.set_position(CaaConfig::POSITION_MEAN_RESPONSE);
  MemoryJob job;
  const auto fit = Fit("caa", config, input_, job);
  ASSERT_TRUE(fit.ok()) << fit.status();
  const SteeringVectorSpec& spec = fit->vector->spec();
  EXPECT_EQ(spec.operation, Operation::kAdd);
  EXPECT_EQ(spec.apply_to, ApplyTo::kResponse);
  EXPECT_GT(spec.layers[0].weight, 0);
  EXPECT_NE(spec.layers[0].weight, 1);
  MemoryJob other;
  const auto mean = FitWith("mean_diff", config.fit(), input_, other);
  ASSERT_TRUE(mean.ok());
  EXPECT_NEAR(std::abs(Cosine(mean->vector->spec().layers[0].direction, spec.layers[0].direction)), 1, 1e-5);
}

TEST_F(MethodsTest, FitsOverTheSamePairsShareWhatTheyMeasure) {
  MemoryJob job;
  ASSERT_TRUE(FitWith("mean_diff", Fast(), input_, job).ok());
  const int64_t saves = job.saves;
  CaaConfig config = With<CaaConfig>(Fast());
  config.set_position(CaaConfig::POSITION_MEAN_RESPONSE);
  const auto fit = Fit("caa", config, input_, job);
  ASSERT_TRUE(fit.ok());
  EXPECT_EQ(job.saves, saves) << "the same rows, gradients and measurements";
  MemoryJob alone;
  EXPECT_EQ((*Fit("caa", config, input_, alone)).vector->digest(), fit->vector->digest());
}

TEST_F(MethodsTest, RandomDependsOnTheSeedOnly) {
  methods::v1::FitOptions fit = Fast();
  fit.add_layers(1);
  FitInput other_pairs = input_;
  std::swap(other_pairs.pairs[0], other_pairs.held_out_pairs[0]);
  MemoryJob a, b, c;
  const auto first = FitWith("random", fit, input_, a), second = FitWith("random", fit, other_pairs, b);
  fit.set_seed(1);
  const auto third = FitWith("random", fit, input_, c);
  ASSERT_TRUE(first.ok() && second.ok() && third.ok());
  const auto direction = [](const auto& fitted) { return fitted->vector->spec().layers[0].direction; };
  EXPECT_NEAR(std::abs(Cosine(direction(first), direction(second))), 1, 1e-6);
  EXPECT_LT(std::abs(Cosine(direction(first), direction(third))), 0.9);
}

TEST_F(MethodsTest, APreviewCountsWithoutAPass) {
  input_.pairs[2].dispreferred = input_.pairs[2].preferred;
  for (const char* method : {"grains", "caa", "auto"}) {
    const auto made = methods_.Create(method, nullptr);
    ASSERT_TRUE(made.ok());
    const auto preview = (*made)->Preview(input_, Probe());
    ASSERT_TRUE(preview.ok()) << preview.status();
    EXPECT_EQ(preview->training + preview->validation, 9);
    EXPECT_EQ(preview->held_out, 10);
    ASSERT_EQ(preview->unusable.size(), 1u);
    EXPECT_EQ(preview->unusable[0].item, "pairs[2]");
    EXPECT_GT(preview->rows, 100);
    EXPECT_EQ(preview->objective, "pref_mean");
  }
  input_.pairs.resize(3);
  EXPECT_EQ(GetErrorDetail((*methods_.Create("caa", nullptr))->Preview(input_, Probe()).status()).reason,
            kPairsDegenerate);
}

}  // namespace
}  // namespace trimtab
