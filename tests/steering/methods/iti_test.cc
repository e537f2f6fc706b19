#include "steering/methods/iti.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "steering/methods/fit_pipeline.h"
#include "tests/steering/methods/source_run.h"

namespace trimtab {
namespace {

using methods::v1::ItiConfig;
using methods::v1::NlItiConfig;

class ItiTest : public ::testing::Test {
 protected:
  // Heads' values, mean over the last `window` tokens of the answers: [P, 2, layers, H, head_dim] double.
  at::Tensor States(const FitPairs& pairs, int64_t window) const {
    std::vector<at::Tensor> rows;
    for (const FitPair& pair : pairs.training) {
      const at::Tensor prompt = probe_.Embed(pair.encoded.prompt);
      rows.push_back(probe_.CaptureStates({prompt, prompt}, {pair.encoded.preferred, pair.encoded.dispreferred},
                                          DeltaPosition::kMeanResponse, {0, 1, 2, 3}, Site::kAttentionHeads, window));
    }
    return at::stack(rows).to(at::kDouble).unflatten(-1, {probe_.num_heads(), probe_.head_dim()});
  }
  // sigma * theta of all heads of a layer: [head_width].
  at::Tensor Edit(const at::Tensor& states, int64_t layer) const {
    const at::Tensor own = states.select(2, layer);  // [P, 2, H, head_dim]
    std::vector<at::Tensor> edits;
    for (int64_t head = 0; head < probe_.num_heads(); ++head) {
      const at::Tensor a = own.select(2, head);
      at::Tensor theta = a.select(1, 0).mean(0) - a.select(1, 1).mean(0);
      theta = theta / theta.norm();
      const at::Tensor along = (a * theta).sum(-1).flatten();
      edits.push_back(theta * along.std(/*unbiased=*/false));
    }
    return at::cat(edits);
  }

  const std::shared_ptr<const LoadedModel> loaded_ = MakeTinyLoadedModel();
  const ModelProbe probe_ = TinyProbe(loaded_);
};

TEST_F(ItiTest, AllHeadsTogetherAreTheirFoldedEdits) {
  ItiConfig config;
  config.set_heads(1000);
  NlItiConfig other;
  other.set_heads(1000);
  for (const bool network : {false, true}) {
    SourceRun run(network ? *NlItiRecipe(other) : *ItiRecipe(config), TenPairs(), probe_);
    const auto candidates = run.source->Candidates(run.context);
    ASSERT_TRUE(candidates.ok()) << candidates.status();
    ASSERT_EQ(candidates->size(), 1u);
    const DirectionSet& set = candidates->front();
    ASSERT_EQ(set.size(), 4u);
    const at::Tensor states = States(run.pairs, network ? 6 : 1);
    for (int64_t layer = 0; layer < 4; ++layer) {
      const at::Tensor folded =
          probe_.FoldHeads({{1, 2, 3}}, {layer}, Edit(states, layer).to(at::kFloat).unsqueeze(0))[0];
      const LayerDirection& direction = set[static_cast<size_t>(layer)];
      EXPECT_EQ(direction.layer, layer);
      EXPECT_NEAR(direction.weight, folded.norm().item<float>(), 1e-4 * direction.weight);
      EXPECT_LT((at::tensor(direction.direction) * direction.weight - folded).abs().max().item<double>(),
                1e-4 * direction.weight);
      EXPECT_GT(run.source->Stability(run.context, direction), 0.3);
      EXPECT_GT(direction.explained_variance, 0);
      EXPECT_LE(direction.explained_variance, 1);
      EXPECT_NE(direction.cosine_to_margin_gradient, 0);
    }
  }
}

// What only two heads know, the probes find.
TEST_F(ItiTest, TheHeadsThatKnowAreChosen) {
  ItiConfig config;
  config.set_heads(2);
  const ModelProbe probe(loaded_, {.batch_tokens = 8192});  // all pairs are one group
  SourceRun run(*ItiRecipe(config), TenPairs(), probe);
  ASSERT_TRUE(run.source->Candidates(run.context).ok());
  // Noise in place of what was measured, but for two heads.
  const auto head_dim = static_cast<size_t>(probe.head_dim()), width = static_cast<size_t>(probe.head_width());
  const size_t floats = run.pairs.training.size() * 2 * run.layers.size() * width;
  int replaced = 0;
  uint32_t state = 7;
  for (auto& [key, bytes] : run.job.partials) {
    if (bytes.size() != floats * sizeof(float)) continue;
    ++replaced;
    auto* values = reinterpret_cast<float*>(bytes.data());  // [pair, answer, layer, head, head_dim]
    for (size_t i = 0; i < floats; ++i) {
      state = state * 1664525u + 1013904223u;
      values[i] = static_cast<float>(state >> 8) / static_cast<float>(1 << 24) - 0.5f;
      const size_t answer = i / (width * run.layers.size()) % 2, layer = i / width % run.layers.size();
      const size_t head = i % width / head_dim;
      if ((layer == 2 && head == 1) || (layer == 3 && head == 0)) values[i] += answer == 0 ? 4.0f : -4.0f;
    }
  }
  ASSERT_EQ(replaced, 1);
  const auto source = run.recipe.source();
  const auto candidates = source->Candidates(run.context);
  ASSERT_TRUE(candidates.ok()) << candidates.status();
  ASSERT_EQ(candidates->front().size(), 2u);
  EXPECT_EQ(candidates->front()[0].layer, 2);
  EXPECT_EQ(candidates->front()[1].layer, 3);
  EXPECT_GT(candidates->front()[0].explained_variance, 0.8);
  FitReport report;
  source->Describe(run.context, candidates->front(), report);
  EXPECT_TRUE(report.warnings.empty());
}

TEST_F(ItiTest, FitsVectorsOfTheAttentionsOutput) {
  FitInput input = TenPairs();
  input.held_out_pairs.assign(input.pairs.begin(), input.pairs.begin() + 3);
  for (const bool network : {false, true}) {
    ItiConfig config;
    config.mutable_fit()->set_random_directions(2);
    NlItiConfig other;
    other.mutable_fit()->set_random_directions(2);
    const FitRecipe recipe = network ? *NlItiRecipe(other) : *ItiRecipe(config);
    std::string digest;
    for (const int64_t stop_at : {0, 9}) {
      MemoryJob job;
      job.stop_at = stop_at;
      ModelProbe probe = TinyProbe(loaded_);
      auto fit = RunFit(recipe, input, probe, job);
      if (stop_at > 0) {  // again from what was saved
        EXPECT_EQ(fit.status().code(), absl::StatusCode::kCancelled);
        EXPECT_FALSE(job.partials.empty());
        job.stop_at = 0;
        fit = RunFit(recipe, input, probe, job);
      }
      ASSERT_TRUE(fit.ok()) << fit.status();
      const SteeringVectorSpec& spec = fit->vector->spec();
      EXPECT_EQ(spec.method, network ? "nl_iti" : "iti");
      EXPECT_EQ(spec.site, Site::kAttentionOutput);
      EXPECT_EQ(spec.operation, Operation::kAdd);
      EXPECT_EQ(spec.strength_mode, StrengthMode::kAbsolute);
      EXPECT_EQ(spec.layers.size(), 1u) << "a tenth of 16 heads";
      EXPECT_GT(spec.default_strength, 0);
      EXPECT_GT(fit->report.kl_at_default, 0);
      EXPECT_EQ(fit->report.held_out.pairs, 3);
      if (digest.empty()) digest = fit->vector->digest();
      EXPECT_EQ(fit->vector->digest(), digest);
    }
  }
}

TEST_F(ItiTest, RelativeStrengthIsThatOfTheStrongestLayer) {
  ItiConfig config;
  config.set_heads(1000);
  config.mutable_fit()->set_strength_mode(methods::v1::STRENGTH_MODE_RELATIVE);
  SourceRun run(*ItiRecipe(config), TenPairs(), probe_);
  const auto candidates = run.source->Candidates(run.context);
  ASSERT_TRUE(candidates.ok()) << candidates.status();
  float largest = 0;
  for (const LayerDirection& direction : candidates->front()) {
    EXPECT_GT(direction.weight, 0);
    largest = std::max(largest, direction.weight);
  }
  EXPECT_EQ(largest, 1);
}

TEST_F(ItiTest, RefusesWhatIsWrong) {
  ItiConfig config;
  config.set_heads(0);
  config.set_probe_validation_fraction(0.9f);
  config.set_inverse_regularization(-1);
  const absl::Status status = ItiRecipe(config).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  NlItiConfig other;
  other.set_epochs(0);
  other.set_probe_tokens(-3);
  EXPECT_EQ(NlItiRecipe(other).status().code(), absl::StatusCode::kInvalidArgument);

  ItiConfig likelihood;
  likelihood.mutable_fit()->set_objective(methods::v1::OBJECTIVE_KIND_LIKELIHOOD_MEAN);
  SourceRun run(*ItiRecipe(likelihood), TenPairs(), probe_);
  EXPECT_EQ(run.source->Candidates(run.context).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace trimtab
