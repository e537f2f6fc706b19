// ModelProbe away from the residual stream: at the outputs of attention and MLP, and at attention's heads.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "models/attention/dense_attention.h"
#include "models/testing/tiny_model.h"
#include "steering/model_probe.h"
#include "steering/runtime/steering_bank.h"
#include "steering/runtime/steering_tap.h"
#include "tests/steering/probe_fixture.h"
#include "tests/steering/testing/vectors.h"

namespace trimtab {
namespace {

// Adds to the heads of some layers, at all rows.
class HeadEditTap final : public LayerTap {
 public:
  HeadEditTap(std::vector<int64_t> layers, at::Tensor edits) : layers_(std::move(layers)), edits_(std::move(edits)) {}
  at::Tensor At(Site, int64_t layer, at::Tensor heads) override {
    return heads + edits_[std::find(layers_.begin(), layers_.end(), layer) - layers_.begin()];
  }
  bool Wants(Site site, int64_t layer) const override {
    return site == Site::kAttentionHeads && std::find(layers_.begin(), layers_.end(), layer) != layers_.end();
  }

 private:
  const std::vector<int64_t> layers_;
  const at::Tensor edits_;  // [layers, heads * head_dim]
};

at::Tensor RandomRows(int64_t rows, int64_t width, uint32_t seed) {
  return at::tensor(RandomUnit(rows * width, seed)).view({rows, width}) * 2;
}

// A13.10: an edit of heads, folded through the output projection, is an edit of the attention's output.
TEST_F(ModelProbeTest, FoldedHeadsSteerAsTheHeadsThemselves) {
  const std::vector<int64_t> layers = {1, 3};
  const at::Tensor edits = RandomRows(2, probe_.head_width(), 8);
  const std::vector<TokenId> text = {1, 2, 3, 4, 5};
  const at::Tensor folded = probe_.FoldHeads({text}, layers, edits);
  ASSERT_EQ(folded.sizes(), (std::vector<int64_t>{2, probe_.hidden_size()}));
  EXPECT_TRUE(at::allclose(folded, probe_.FoldHeads({{9}, {8, 7}}, layers, edits), 1e-4, 1e-5)) << "whatever the text";
  SteeringVectorSpec spec = RandomSpec(layers, probe_.hidden_size(), 1);
  spec.site = Site::kAttentionOutput;
  spec.operation = Operation::kAdd;
  spec.strength_mode = StrengthMode::kAbsolute;
  spec.max_strength = 10;
  for (size_t l = 0; l < layers.size(); ++l) {
    const at::Tensor row = folded[static_cast<int64_t>(l)];
    spec.layers[l].weight = row.norm().item<float>();
    const at::Tensor unit = (row / row.norm()).contiguous();
    spec.layers[l].direction.assign(unit.data_ptr<float>(), unit.data_ptr<float>() + unit.numel());
  }
  SteeringBank bank(1, probe_.num_layers(), probe_.hidden_size());
  const int32_t slot = *bank.Acquire(*SteeringVector::Create(spec));
  const EncodedPair pair = Encoded("heads", "good", "bad");
  const at::Tensor prompt = probe_.Embed(pair.prompt);
  SteeringRows rows;
  rows.entries.resize((pair.prompt.size() + pair.preferred.size()) * kMaxSelections);
  for (const float strength : {1.0f, -3.0f}) {
    for (size_t row = 0; row < rows.entries.size(); row += kMaxSelections) rows.entries[row] = {slot, strength};
    SteeringTap steering(bank, rows);
    HeadEditTap heads(layers, strength * edits);
    IdentityTap identity;
    const double expected = LogProb(prompt, pair.preferred, heads);
    EXPECT_NEAR(LogProb(prompt, pair.preferred, steering), expected, 1e-3);
    EXPECT_GT(std::abs(expected - LogProb(prompt, pair.preferred, identity)), 0.05);
  }
}

// Behind a norm, folding is the mean slope.
TEST(ModelProbeFold, BehindANormItIsTheMeanSlopeOfTheAttentionsOutput) {
  const auto loaded = MakeTinyLoadedModel({.architecture = TinyArchitecture::kGemma3});
  const ModelProbe probe(loaded, {});
  const std::vector<int64_t> layers = {2};
  const at::Tensor edits = RandomRows(1, probe.head_width(), 8);
  const std::vector<std::vector<TokenId>> texts = {{1, 2, 3, 4, 5}, {9, 8, 7}};
  const at::Tensor folded = probe.FoldHeads(texts, layers, edits)[0];

  class Reader final : public LayerTap {
   public:
    explicit Reader(at::Tensor edit) : edit_(std::move(edit)) {}
    at::Tensor At(Site site, int64_t, at::Tensor values) override {
      if (site == Site::kAttentionHeads) return values + edit_;
      output = values[-1];
      return values;
    }
    bool Wants(Site site, int64_t layer) const override {
      return layer == 2 && (site == Site::kAttentionHeads || site == Site::kAttentionOutput);
    }
    at::Tensor output;

   private:
    const at::Tensor edit_;
  };
  at::NoGradGuard no_grad;
  at::Tensor slope;
  for (const std::vector<TokenId>& text : texts) {
    const TokenLayout layout = TokenLayout::Dense({{.length = static_cast<int64_t>(text.size())}});
    for (const float sign : {1.0f, -1.0f}) {
      DenseAttention attention;
      Reader reader(edits * (sign * 5e-3f));
      loaded->model->Forward(probe.Embed(text), {.layout = layout, .attention = attention, .tap = reader});
      const at::Tensor part = reader.output * (sign / (2 * 5e-3f * static_cast<float>(texts.size())));
      slope = slope.defined() ? slope + part : part;
    }
  }
  EXPECT_LT(((folded - slope).norm() / slope.norm()).item<double>(), 1e-2);
}

TEST_F(ModelProbeTest, CapturesOtherSitesAndTheLastTokensOfAnAnswer) {
  const std::vector<TokenId> text = {1, 2, 3, 4, 5, 6};
  class Reader final : public LayerTap {
   public:
    at::Tensor At(Site site, int64_t layer, at::Tensor values) override {
      states[{site, layer}] = values;
      return values;
    }
    bool Wants(Site, int64_t) const override { return true; }
    std::map<std::pair<Site, int64_t>, at::Tensor> states;
  } reader;
  at::NoGradGuard no_grad;
  const TokenLayout layout = TokenLayout::Dense({{.length = 6}});
  DenseAttention attention;
  loaded_->model->Forward(probe_.Embed(text), {.layout = layout, .attention = attention, .tap = reader});
  const std::vector<int64_t> layers = {0, 2};
  const at::Tensor prompt = probe_.Embed({1, 2});
  const std::vector<TokenId> answer = {3, 4, 5, 6};
  for (const Site site : {Site::kBlockOutput, Site::kAttentionOutput, Site::kMlpOutput, Site::kAttentionHeads}) {
    for (const int64_t last : {1, 3, 50}) {
      const at::Tensor states =
          probe_.CaptureStates({prompt}, {answer}, DeltaPosition::kMeanResponse, layers, site, last);
      const int64_t count = std::min<int64_t>(last, 4);
      for (size_t l = 0; l < layers.size(); ++l) {
        const at::Tensor expected = reader.states[{site, layers[l]}].narrow(0, 6 - count, count).mean(0);
        EXPECT_TRUE(at::allclose(states[0][static_cast<int64_t>(l)], expected, 1e-4, 1e-4));
      }
    }
  }
  // Without a prompt.
  const at::Tensor alone = probe_.CaptureStates({probe_.Embed(text).narrow(0, 0, 0)}, {text},
                                                DeltaPosition::kLastResponse, {2}, Site::kMlpOutput);
  EXPECT_TRUE(at::allclose(alone[0][0], reader.states[{Site::kMlpOutput, 2}][5], 1e-4, 1e-4));
}

TEST_F(ModelProbeTest, NeutralDivergenceIsThatOfWholePassesAtEverySite) {
  // In another order than the blocks', and with a block output before the first block that another vector changes.
  for (const auto& [site, layers] : {std::pair<Site, std::vector<int64_t>>{Site::kMlpOutput, {2, 3}},
                                     {Site::kAttentionOutput, {0}},
                                     {Site::kBlockOutput, {1}},
                                     {Site::kMlpOutput, {0, 1}}}) {
    const auto vector = AtSite(site, layers, 12);
    const auto kl = probe_.NeutralKl({{vector, 0.3f, ApplyTo::kAll}}, job_);
    ASSERT_TRUE(kl.ok());
    at::NoGradGuard no_grad;
    const auto logprobs = [&](LayerTap& tap) {
      const TokenLayout layout = TokenLayout::Dense({{.length = 8}, {.length = 4}});
      DenseAttention attention;
      const at::Tensor hidden = loaded_->model->Forward(probe_.Embed({1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6}),
                                                        {.layout = layout, .attention = attention, .tap = tap});
      return at::log_softmax(loaded_->model->Logits(hidden), -1);
    };
    IdentityTap identity;
    SteeringBank bank(1, probe_.num_layers(), probe_.hidden_size());
    SteeringRows rows;
    rows.entries.resize(12 * kMaxSelections);
    const int32_t slot = *bank.Acquire(vector);
    for (size_t row = 0; row < 12; ++row) rows.entries[row * kMaxSelections] = {slot, 0.3f};
    SteeringTap steering(bank, rows);
    const at::Tensor p = logprobs(identity), q = logprobs(steering);
    const at::Tensor each = (p.exp() * (p - q)).sum(-1).slice(0, 0, 12, 2);
    EXPECT_NEAR((*kl)[0], each.mean().item<double>(), 1e-5 + 1e-3 * (*kl)[0]);
    EXPECT_GT((*kl)[0], 1e-4);
    // What the text's own next tokens lose: those after rows 0, 2, ..., 10.
    const auto cost = probe_.NeutralCosts({{vector, 0.3f, ApplyTo::kAll}}, job_);
    ASSERT_TRUE(cost.ok());
    EXPECT_EQ((*cost)[0].kl, (*kl)[0]);
    const std::vector<int64_t> next = {2, 4, 6, 8, 8, 6};
    double lost = 0;
    for (int64_t i = 0; i < 6; ++i) lost += (p - q)[2 * i][next[static_cast<size_t>(i)]].item<double>() / 6;
    EXPECT_NEAR((*cost)[0].cross_entropy_change, lost, 1e-4);
  }
}

}  // namespace
}  // namespace trimtab
