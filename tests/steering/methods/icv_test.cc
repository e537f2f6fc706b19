#include "steering/methods/icv.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "steering/methods/fit_pipeline.h"
#include "tests/steering/methods/source_run.h"

namespace trimtab {
namespace {

using methods::v1::IcvConfig;

class IcvTest : public ::testing::Test {
 protected:
  // Differences of the last states of whole texts: [P, layers + 1, hidden] double, the embedding first.
  at::Tensor Differences(const FitPairs& pairs, bool with_prompt) const {
    std::vector<at::Tensor> rows;
    for (const FitPair& pair : pairs.training) {
      std::vector<at::Tensor> both;
      for (const auto* answer : {&pair.encoded.preferred, &pair.encoded.dispreferred}) {
        std::vector<TokenId> text = with_prompt ? pair.encoded.prompt : std::vector<TokenId>();
        text.insert(text.end(), answer->begin(), answer->end());
        const at::Tensor embedded = probe_.Embed(text);
        const at::Tensor states = probe_.CaptureStates({embedded}, {}, DeltaPosition::kLastPrompt, {0, 1, 2, 3});
        both.push_back(at::cat({embedded.narrow(0, embedded.size(0) - 1, 1), states[0]}));
      }
      rows.push_back(both[0] - both[1]);
    }
    return at::stack(rows).to(at::kDouble);
  }

  const std::shared_ptr<const LoadedModel> loaded_ = MakeTinyLoadedModel();
  const ModelProbe probe_ = TinyProbe(loaded_);
};

TEST_F(IcvTest, IsTheMeanAndTheFirstComponentOverAllBlocksAtOnce) {
  for (const auto text : {IcvConfig::TEXT_UNSPECIFIED, IcvConfig::TEXT_PROMPT_AND_ANSWER}) {
    IcvConfig config;
    config.set_text(text);
    SourceRun run(*IcvRecipe(config), TenPairs(), probe_);
    const auto candidates = run.source->Candidates(run.context);
    ASSERT_TRUE(candidates.ok()) << candidates.status();
    ASSERT_EQ(candidates->size(), 1u);
    const DirectionSet& set = candidates->front();
    ASSERT_EQ(set.size(), 4u);

    const at::Tensor rows = Differences(run.pairs, text == IcvConfig::TEXT_PROMPT_AND_ANSWER).flatten(1);
    const at::Tensor mean = rows.mean(0);
    const auto [u, s, v] = at::linalg_svd(rows - mean, /*full_matrices=*/false);
    const at::Tensor first = u.select(1, 0);
    const double largest = first[first.abs().argmax()].item<double>();
    const at::Tensor icv = (mean + v[0] * (largest < 0 ? -1 : 1)).view({5, probe_.hidden_size()});
    for (int64_t layer = 0; layer < 4; ++layer) {
      const at::Tensor expected = icv[layer + 1] / icv[layer + 1].norm();
      const LayerDirection& direction = set[static_cast<size_t>(layer)];
      EXPECT_EQ(direction.layer, layer);
      EXPECT_EQ(direction.weight, 1) << "each block gets the whole strength";
      EXPECT_LT((at::tensor(direction.direction) - expected).abs().max().item<double>(), 1e-4);
      EXPECT_GT(run.source->Stability(run.context, direction), 0);
    }
    FitReport report;
    run.source->Describe(run.context, set, report);
    EXPECT_EQ(report.pair_count, static_cast<int64_t>(run.pairs.training.size()));
  }
}

TEST_F(IcvTest, BriefAnswersAreReadBehindTheirPrompts) {
  FitInput input = TenPairs();
  for (PreferencePair& pair : input.pairs) {
    pair.preferred = "A";
    pair.dispreferred = "B";
  }
  IcvConfig config;
  SourceRun unset(*IcvRecipe(config), input, probe_);
  config.set_text(IcvConfig::TEXT_PROMPT_AND_ANSWER);
  SourceRun with(*IcvRecipe(config), input, probe_);
  config.set_text(IcvConfig::TEXT_ANSWER);
  SourceRun without(*IcvRecipe(config), input, probe_);
  const auto direction = [](SourceRun& run) { return (*run.source->Candidates(run.context))[0][2].direction; };
  EXPECT_EQ(direction(unset), direction(with));
  EXPECT_NE(direction(unset), direction(without));
}

TEST_F(IcvTest, FitsVectorsOfTheMlpsOutput) {
  IcvConfig config;
  config.mutable_fit()->set_random_directions(2);
  FitInput input = TenPairs();
  input.held_out_pairs.assign(input.pairs.begin(), input.pairs.begin() + 3);
  for (const bool constant : {false, true}) {
    config.set_constant_strength(constant);
    MemoryJob job;
    ModelProbe probe = TinyProbe(loaded_);
    const auto fit = RunFit(*IcvRecipe(config), input, probe, job);
    ASSERT_TRUE(fit.ok()) << fit.status();
    const SteeringVectorSpec& spec = fit->vector->spec();
    EXPECT_EQ(spec.method, "icv");
    EXPECT_EQ(spec.site, Site::kMlpOutput);
    EXPECT_EQ(spec.operation, constant ? Operation::kAddPreserveNorm : Operation::kAddOpposingPreserveNorm);
    EXPECT_EQ(spec.layers.size(), 4u);
    EXPECT_GT(fit->report.validation.margin_gain, 0);
    EXPECT_GT(fit->report.kl_at_default, 0);
    EXPECT_EQ(fit->report.held_out.pairs, 3);
    // The vector survives its bytes.
    EXPECT_EQ((*SteeringVector::Parse(fit->vector->Serialize()))->digest(), fit->vector->digest());
  }
}

TEST_F(IcvTest, LayersCanBeChosenFrom) {
  IcvConfig config;
  config.mutable_fit()->set_random_directions(0);
  config.mutable_fit()->add_candidate_layers(1);
  config.mutable_fit()->add_candidate_layers(2);
  MemoryJob job;
  ModelProbe probe = TinyProbe(loaded_);
  const auto fit = RunFit(*IcvRecipe(config), TenPairs(), probe, job);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_EQ(fit->vector->spec().layers.size(), 1u);
}

TEST_F(IcvTest, RefusesWhatIsWrong) {
  IcvConfig config;
  config.set_text(static_cast<IcvConfig::Text>(9));
  config.mutable_fit()->set_max_kl(-1);
  const absl::Status status = IcvRecipe(config).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace trimtab
