#include "steering/methods/masking_effect.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <string>

#include "models/testing/tiny_model.h"
#include "steering/methods/grains_config.h"
#include "tests/steering/testing/memory_job.h"
#include "tests/steering/testing/pairs.h"

namespace trimtab {
namespace {

using methods::v1::GrainsConfig;

// A model whose margin is known: each '+' before a token votes for the answer "y", each '-' for "n", all other tokens,
// the mask among them, for neither. The logits of y and n are plus and minus the mean vote of the tokens so far, so of
// a prompt of L tokens F = 2 (plus - minus) / L. One head, uniform attention.
class VotingModel final : public CausalModel {
 public:
  VotingModel() : spec_(TinyModelSpec({.num_layers = 1, .hidden_size = 4, .num_heads = 1, .num_kv_heads = 1})) {
    votes_ = at::zeros({spec_.vocab_size, spec_.hidden_size});
    votes_['+'][0] = 1;
    votes_['-'][0] = -1;
    readout_ = at::zeros({spec_.hidden_size, spec_.vocab_size});
    readout_[0]['y'] = 1;
    readout_[0]['n'] = -1;
  }
  const ModelSpec& spec() const override { return spec_; }
  at::ScalarType dtype() const override { return at::kFloat; }
  at::Tensor Embed(const at::Tensor& token_ids) const override { return votes_.index_select(0, token_ids); }
  at::Tensor Forward(at::Tensor embeddings, const ForwardContext& context) const override {
    const at::Tensor values = embeddings.unsqueeze(1), same = at::zeros_like(values);
    return context.attention.Attend(0, spec_.attention(0), same, same, values, context.layout).squeeze(1);
  }
  int64_t weight_bytes() const override { return 0; }
  at::Tensor Logits(const at::Tensor& hidden, Workspace*, Arithmetic) const override { return hidden.matmul(readout_); }

 private:
  const ModelSpec spec_;
  at::Tensor votes_;    // [vocab, hidden]
  at::Tensor readout_;  // [hidden, vocab]
};

std::shared_ptr<const LoadedModel> Loaded(std::shared_ptr<const CausalModel> model) {
  LoadedModel loaded = *MakeTinyLoadedModel();
  if (model != nullptr) loaded.model = std::move(model);
  return std::make_shared<const LoadedModel>(std::move(loaded));
}

class MaskingEffectTest : public ::testing::Test {
 protected:
  static GrainsConfig Config(GrainsConfig::AttributionKind kind = GrainsConfig::ATTRIBUTION_KIND_OCCLUSION) {
    GrainsConfig config;
    config.set_attribution(kind);
    config.set_k(1);
    return *ResolveGrainsConfig(config);
  }
  std::vector<EncodedPair> Encoded(const std::vector<std::string>& prompts) const {
    std::vector<EncodedPair> pairs;
    for (const std::string& prompt : prompts) pairs.push_back(*probe_.Encode(Pair(prompt, "y", "n")));
    return pairs;
  }
  absl::StatusOr<MaskingEffect> Measure(const std::vector<EncodedPair>& pairs, const GrainsConfig& config = Config()) {
    return MeasureMaskingEffect(config, probe_, pairs, MarginKind::kPrefSum, job_);
  }
  // What one vote weighs in a pair's F.
  static double Vote(const EncodedPair& pair) { return 2.0 / static_cast<double>(pair.prompt.size()); }
  // Prompts with one '+' and one '-' among `letters` others.
  static std::vector<std::string> OneVoteEach(size_t count, size_t letters) {
    std::vector<std::string> prompts;
    for (size_t i = 0; i < count; ++i) {
      std::string prompt(letters, static_cast<char>('a' + i % 26));
      prompt.insert(i % letters, "+");
      prompt.insert((i * 7 + 3) % letters, "-");
      prompts.push_back(std::move(prompt));
    }
    return prompts;
  }

  ModelProbe probe_{Loaded(std::make_shared<const VotingModel>()), {}};
  MemoryJob job_;
};

TEST_F(MaskingEffectTest, MaskingWhatTheMarginHangsOnMovesIt) {
  const std::vector<EncodedPair> pairs = Encoded({"ab+cd-ef"});
  const auto effect = Measure(pairs);
  ASSERT_TRUE(effect.ok()) << effect.status();
  EXPECT_EQ(effect->pairs, 1);
  EXPECT_NEAR(effect->positive.mean, -Vote(pairs[0]), 1e-6) << "the '+' is gone";
  EXPECT_NEAR(effect->negative.mean, Vote(pairs[0]), 1e-6) << "the '-' is gone";
  EXPECT_EQ(effect->positive.low, effect->positive.mean) << "one pair has no interval";
}

TEST_F(MaskingEffectTest, MoreTokensOfOneSideCountTogether) {
  GrainsConfig config = Config();
  config.set_k(3);
  config.set_rho(1);
  const std::vector<EncodedPair> pairs = Encoded({"+a+b-c+"});
  const auto effect = Measure(pairs, config);
  ASSERT_TRUE(effect.ok()) << effect.status();
  EXPECT_NEAR(effect->positive.mean, -3 * Vote(pairs[0]), 1e-6);
  EXPECT_NEAR(effect->negative.mean, Vote(pairs[0]), 1e-6);
}

TEST_F(MaskingEffectTest, RandomTokensDoNothingOnTheWhole) {
  const std::vector<EncodedPair> pairs = Encoded(OneVoteEach(40, 10));
  const auto effect = Measure(pairs);
  ASSERT_TRUE(effect.ok()) << effect.status();
  EXPECT_EQ(effect->pairs, 40);
  const double vote = Vote(pairs[0]);
  for (const MeanInterval& random : {effect->random_positive, effect->random_negative}) {
    EXPECT_LT(std::abs(random.mean), 0.25 * vote);
    EXPECT_LT(random.low, 0);
    EXPECT_GT(random.high, 0);
  }
  EXPECT_LT(effect->positive_against_random.high, 0);
  EXPECT_GT(effect->negative_against_random.low, 0);
}

// Each pair's control is drawn by its place in the list, so what one pair gives can be had alone, behind pairs that are
// left out; from these values the intervals are made once more.
TEST_F(MaskingEffectTest, IntervalsAreOverPairsAndDifferencesArePaired) {
  const std::vector<EncodedPair> pairs = Encoded({"+-", "-+ab", "a+-", "+ab-cd", "x-+"});
  const EncodedPair idle = Encoded({"no votes"})[0];
  std::vector<double> positive, negative, positive_gain, negative_gain;
  for (size_t i = 0; i < pairs.size(); ++i) {
    std::vector<EncodedPair> alone(i, idle);
    alone.push_back(pairs[i]);
    const auto effect = Measure(alone);
    ASSERT_TRUE(effect.ok()) << effect.status();
    ASSERT_EQ(effect->pairs, 1);
    EXPECT_NEAR(effect->positive.mean, -Vote(pairs[i]), 1e-6);
    positive.push_back(effect->positive.mean);
    negative.push_back(effect->negative.mean);
    positive_gain.push_back(effect->positive.mean - effect->random_positive.mean);
    negative_gain.push_back(effect->negative.mean - effect->random_negative.mean);
  }
  const auto effect = Measure(pairs);
  ASSERT_TRUE(effect.ok()) << effect.status();
  const auto expect_interval = [](const MeanInterval& actual, const std::vector<double>& values) {
    const MeanInterval expected = MeanWithInterval(values);
    EXPECT_NEAR(actual.mean, expected.mean, 1e-9);
    EXPECT_NEAR(actual.low, expected.low, 1e-9);
    EXPECT_NEAR(actual.high, expected.high, 1e-9);
    EXPECT_LT(actual.low, actual.high);
  };
  expect_interval(effect->positive, positive);
  expect_interval(effect->negative, negative);
  expect_interval(effect->positive_against_random, positive_gain);
  expect_interval(effect->negative_against_random, negative_gain);
}

TEST_F(MaskingEffectTest, PairsWithoutASideAreSkipped) {
  const auto effect = Measure(Encoded({"only + here", "a+b-c", "only - here", "neither"}));
  ASSERT_TRUE(effect.ok()) << effect.status();
  EXPECT_EQ(effect->pairs, 1);
  const auto none = Measure(Encoded({"neither", "+"}));
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(none->pairs, 0);
  EXPECT_EQ(none->positive.mean, 0);
  EXPECT_EQ(none->positive_against_random.high, 0);
  EXPECT_EQ(none->median_completeness_error, 0);
}

// F is linear in the embeddings, so the path finds what occlusion finds, without an error.
TEST_F(MaskingEffectTest, PathAndOcclusionAgreeOnALinearModel) {
  const std::vector<EncodedPair> pairs = Encoded(OneVoteEach(4, 6));
  const auto effect = Measure(pairs, Config(GrainsConfig::ATTRIBUTION_KIND_INTEGRATED_GRADIENTS));
  ASSERT_TRUE(effect.ok()) << effect.status();
  EXPECT_EQ(effect->pairs, 4);
  EXPECT_NEAR(effect->positive.mean, -Vote(pairs[0]), 1e-6);
  EXPECT_NEAR(effect->negative.mean, Vote(pairs[0]), 1e-6);
  EXPECT_LT(effect->median_completeness_error, 1e-5);
  EXPECT_EQ(effect->low_confidence, 0);
}

TEST_F(MaskingEffectTest, APathThatDoesNotConvergeIsCounted) {
  const ModelProbe probe(Loaded(nullptr), {});
  GrainsConfig config = Config(GrainsConfig::ATTRIBUTION_KIND_INTEGRATED_GRADIENTS);
  config.set_max_points(15);
  config.set_completeness_tolerance(1e-9f);
  const std::vector<EncodedPair> pairs = Encoded({"a house", "the sea", "my cat"});
  const auto effect = MeasureMaskingEffect(config, probe, pairs, MarginKind::kPrefSum, job_);
  ASSERT_TRUE(effect.ok()) << effect.status();
  EXPECT_EQ(effect->pairs, 3);
  EXPECT_EQ(effect->low_confidence, 3);
  EXPECT_GT(effect->median_completeness_error, 0);
  // Occlusion took over: the token that moves F most, alone, is the one that was masked.
  EXPECT_LT(effect->positive.mean, 0);
  EXPECT_GT(effect->negative.mean, 0);
}

TEST_F(MaskingEffectTest, StopsWhereTheJobIsCancelled) {
  const std::vector<EncodedPair> pairs = Encoded(OneVoteEach(5, 6));
  ASSERT_TRUE(Measure(pairs).ok());
  const int64_t whole = job_.checkpoints;
  ASSERT_GT(whole, 10);
  for (int64_t stop : {int64_t{1}, whole / 2, whole}) {
    job_ = MemoryJob();
    job_.stop_at = stop;
    EXPECT_EQ(Measure(pairs).status().code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(job_.checkpoints, stop);
  }
}

}  // namespace
}  // namespace trimtab
