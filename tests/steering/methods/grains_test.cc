#include "steering/methods/grains.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "models/testing/tiny_model.h"
#include "server/base/error.h"
#include "steering/methods/fit_pipeline.h"
#include "steering/model_probe.h"
#include "tests/steering/testing/memory_job.h"
#include "tests/steering/testing/pairs.h"

namespace trimtab {
namespace {

using methods::v1::GrainsConfig;

class GrainsTest : public ::testing::Test {
 protected:
  GrainsTest() {
    const char* subjects[] = {"cats", "rain", "tea", "maps", "boats", "music", "bread", "snow", "trees", "chess"};
    for (const char* subject : subjects) {
      input_.pairs.push_back(Pair(std::string("Tell me of ") + subject, std::string("Oh, ") + subject + "!", "No."));
      input_.held_out_pairs.push_back(Pair(std::string("What are ") + subject + "?", "Oh!", "No, no."));
    }
  }
  ModelProbe Probe() const {
    return ModelProbe(loaded_, {.batch_tokens = 512, .neutral_text = {{10, 20, 30, 40, 50, 60, 70, 80, 90, 100}}});
  }
  absl::StatusOr<FitResult> Fit(const GrainsConfig& config, const FitInput& input, MemoryJob& job) const {
    ModelProbe probe = Probe();
    return RunFit(*GrainsRecipe(config), input, probe, job);
  }
  static GrainsConfig Fast() {
    GrainsConfig config;
    config.mutable_fit()->set_random_directions(3);
    config.set_k(3);
    return config;
  }

  const std::shared_ptr<const LoadedModel> loaded_ = MakeTinyLoadedModel();
  FitInput input_;
};

TEST_F(GrainsTest, FitsRaisesTheMarginAndReports) {
  MemoryJob job;
  const auto fit = Fit(Fast(), input_, job);
  ASSERT_TRUE(fit.ok()) << fit.status();
  const SteeringVectorSpec& spec = fit->vector->spec();
  EXPECT_EQ(spec.model_fingerprint, loaded_->fingerprint);
  EXPECT_EQ(spec.method, "grains");
  EXPECT_EQ(spec.layers.size(), 1u);
  EXPECT_LT(spec.layers[0].layer, loaded_->model->spec().num_layers() - 1) << "never the last block by itself";
  EXPECT_GT(spec.default_strength, 0);
  EXPECT_GE(spec.max_strength, 0.5f);
  const FitReport& report = fit->report;
  EXPECT_EQ(report.held_out.pairs, 10);
  EXPECT_EQ(report.validation.pairs, 2);
  EXPECT_GT(report.validation.margin_gain, 0);
  EXPECT_LE(report.kl_at_default, 0.21f);
  EXPECT_EQ(report.random_directions, 3);
  EXPECT_EQ(report.attributions.size(), 8u) << "the training pairs";
  EXPECT_FALSE(report.search.empty());
  GrainsConfig used;
  ASSERT_TRUE(used.ParseFromString(report.resolved_config));
  EXPECT_EQ(used.k(), 3);
  EXPECT_EQ(used.rank(), 32);
}

TEST_F(GrainsTest, TheAuditSaysWhatWasMaskedAndWhy) {
  MemoryJob job;
  const auto fit = Fit(Fast(), input_, job);
  ASSERT_TRUE(fit.ok()) << fit.status();
  for (const PairAttribution& pair : fit->report.attributions) {
    EXPECT_EQ(pair.attribution, "occlusion");
    int positive = 0, negative = 0;
    for (const TokenAttribution& token : pair.tokens) {
      EXPECT_TRUE(std::isfinite(token.score));
      if (!token.candidate) {
        EXPECT_EQ(token.score, 0);
        EXPECT_EQ(token.side, 0);
      }
      positive += token.side > 0;
      negative += token.side < 0;
      if (token.side != 0) {
        EXPECT_GT(token.side * token.score, 0);
      }
    }
    EXPECT_LE(positive, 3);
    EXPECT_LE(negative, 3);
    EXPECT_EQ(pair.used, positive > 0 && negative > 0);
  }
}

TEST_F(GrainsTest, ProgressNeverFallsAndEndsWhole) {
  MemoryJob job;
  ASSERT_TRUE(Fit(Fast(), input_, job).ok());
  double fraction = 0;
  int phase = 0;
  for (const JobProgress& report : job.reports) {
    EXPECT_GE(report.fraction, fraction);
    EXPECT_LE(report.fraction, 1);
    EXPECT_GE(static_cast<int>(report.phase), phase);
    EXPECT_LE(report.completed, report.total);
    fraction = report.fraction;
    phase = static_cast<int>(report.phase);
  }
  EXPECT_EQ(job.reports.back().completed, 10);
  EXPECT_GT(fraction, 0.8);
}

TEST_F(GrainsTest, TheSameInputGivesTheSameDigestAlsoAfterInterruptions) {
  MemoryJob whole;
  const auto fit = Fit(Fast(), input_, whole);
  ASSERT_TRUE(fit.ok()) << fit.status();
  MemoryJob again;
  EXPECT_EQ((*Fit(Fast(), input_, again)).vector->digest(), fit->vector->digest());
  for (int64_t stop : {1, 3, 9, 20}) {
    MemoryJob job;
    job.stop_at = stop;
    job.stop_with = absl::UnavailableError("shutting down");
    int runs = 0;
    absl::StatusOr<FitResult> resumed = absl::UnavailableError("");
    // Each run gets `stop` checkpoints further than its start; what was saved is not computed again.
    while (!resumed.ok() && runs < 400) {
      ++runs;
      job.stop_at = job.checkpoints + stop + runs;
      resumed = Fit(Fast(), input_, job);
      if (!resumed.ok()) {
        ASSERT_EQ(resumed.status().code(), absl::StatusCode::kUnavailable);
      }
    }
    ASSERT_TRUE(resumed.ok());
    EXPECT_GT(runs, 1);
    EXPECT_EQ(resumed->vector->digest(), fit->vector->digest());
    EXPECT_EQ(job.saves, whole.saves) << "a saved part was computed again";
  }
}

TEST_F(GrainsTest, CancelStopsAtTheNextCheckpoint) {
  MemoryJob job;
  job.stop_at = 5;
  EXPECT_EQ(Fit(Fast(), input_, job).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(job.checkpoints, 5);
}

// A13.5: with the answers exchanged, everything changes its sign.
TEST_F(GrainsTest, ExchangingTheAnswersTurnsTheDirectionRound) {
  FitInput exchanged = input_;
  for (PreferencePair& pair : exchanged.pairs) std::swap(pair.preferred, pair.dispreferred);
  for (const auto combine :
       {GrainsConfig::COMBINE_PAIRED, GrainsConfig::COMBINE_MEAN, GrainsConfig::COMBINE_SUBSPACE_GRADIENT}) {
    GrainsConfig config = Fast();
    config.set_combine(combine);
    config.mutable_fit()->add_layers(1);
    MemoryJob job, other;
    const auto a = Fit(config, input_, job), b = Fit(config, exchanged, other);
    ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
    const std::vector<float>&x = a->vector->spec().layers[0].direction, &y = b->vector->spec().layers[0].direction;
    double cosine = 0;
    for (size_t i = 0; i < x.size(); ++i) cosine += static_cast<double>(x[i]) * y[i];
    EXPECT_NEAR(cosine, -1, 1e-3) << GrainsConfig::Combine_Name(combine);
  }
}

TEST_F(GrainsTest, EveryCombinationOfOptionsFits) {
  std::vector<GrainsConfig> configs(7, Fast());
  configs[0].set_attribution(GrainsConfig::ATTRIBUTION_KIND_INTEGRATED_GRADIENTS);
  configs[0].set_max_points(31);
  configs[1].set_attribution(GrainsConfig::ATTRIBUTION_KIND_GRADIENT);
  configs[1].set_delta_position(GrainsConfig::DELTA_POSITION_MEAN_RESPONSE);
  configs[1].set_mask(GrainsConfig::MASK_VOCAB_MEAN);
  configs[2].set_attribution(GrainsConfig::ATTRIBUTION_KIND_RANDOM);
  configs[2].set_delta_position(GrainsConfig::DELTA_POSITION_LAST_RESPONSE);
  configs[2].set_orientation(GrainsConfig::ORIENTATION_PER_ROW_MARGIN_GRADIENT);
  configs[2].set_combine(GrainsConfig::COMBINE_MEAN);
  configs[3].set_preset(GrainsConfig::PRESET_PAPER_FAITHFUL);
  configs[3].set_steps(5);
  configs[4].mutable_fit()->set_objective(methods::v1::OBJECTIVE_KIND_LIKELIHOOD_MEAN);
  configs[4].mutable_fit()->set_norm(methods::v1::NORM_NONE);
  configs[4].mutable_fit()->set_apply_to(v1::APPLY_TO_RESPONSE);
  configs[5].mutable_fit()->add_candidate_strengths(0.02f);
  configs[5].mutable_fit()->add_candidate_strengths(0.1f);
  configs[5].mutable_fit()->add_candidate_layers(0);
  configs[5].mutable_fit()->add_candidate_layers(2);
  configs[5].mutable_fit()->set_validation_fraction(0);
  configs[6].set_attribution(GrainsConfig::ATTRIBUTION_KIND_SMOOTHGRAD);
  configs[6].set_samples(3);
  configs[6].set_gradient_share(0.5f);
  configs[6].set_drop_low_confidence(true);
  std::set<std::string> digests;
  for (const GrainsConfig& config : configs) {
    MemoryJob job;
    const auto fit = Fit(config, input_, job);
    ASSERT_TRUE(fit.ok()) << fit.status() << config.ShortDebugString();
    digests.insert(fit->vector->digest());
    if (config.preset() == GrainsConfig::PRESET_PAPER_FAITHFUL) {
      EXPECT_EQ(fit->vector->spec().layers.size(), 4u);
      EXPECT_EQ(fit->vector->spec().strength_mode, StrengthMode::kAbsolute);
      EXPECT_EQ(fit->vector->spec().apply_to, ApplyTo::kAll);
    }
  }
  EXPECT_EQ(digests.size(), configs.size());
}

// A13.6 and what else cannot be fitted.
TEST_F(GrainsTest, DegeneratePairsAreRefusedWithAReason) {
  FitInput same = input_;
  for (PreferencePair& pair : same.pairs) pair.dispreferred = pair.preferred;
  MemoryJob job;
  absl::Status status = Fit(Fast(), same, job).status();
  EXPECT_EQ(GetErrorDetail(status).reason, kPairsDegenerate);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);

  FitInput few = input_;
  few.pairs.resize(3);
  EXPECT_EQ(GetErrorDetail(Fit(Fast(), few, job).status()).reason, kPairsDegenerate);

  GrainsConfig config = Fast();
  config.mutable_fit()->add_layers(99);
  EXPECT_EQ(GetErrorDetail(Fit(config, input_, job).status()).reason, kFieldInvalid);
}

TEST_F(GrainsTest, PairsThatCannotBeUsedAreLeftOutAndNamed) {
  input_.pairs[1].dispreferred = input_.pairs[1].preferred;
  input_.pairs[2].preferred = std::string(300, 'x');
  input_.pairs[3].preferred.clear();
  GrainsConfig config = Fast();
  config.mutable_fit()->set_max_pair_tokens(200);
  MemoryJob job;
  const auto fit = Fit(config, input_, job);
  ASSERT_TRUE(fit.ok()) << fit.status();
  const std::map<std::string, std::string>& failures = job.reports.back().partial_failures;
  EXPECT_EQ(failures.size(), 3u);
  for (const char* key : {"pairs[1]", "pairs[2]", "pairs[3]"}) EXPECT_TRUE(failures.contains(key)) << key;
}

}  // namespace
}  // namespace trimtab
