#include "steering/model_probe.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <utility>

#include "models/attention/dense_attention.h"
#include "models/loaded_model.h"
#include "models/prompt_builder.h"
#include "models/testing/tiny_model.h"
#include "steering/runtime/steering_bank.h"
#include "steering/runtime/steering_tap.h"
#include "steering/token_tree.h"
#include "tests/steering/probe_fixture.h"
#include "tests/steering/testing/memory_job.h"
#include "tests/steering/testing/pairs.h"
#include "tests/steering/testing/vectors.h"

namespace trimtab {
namespace {

TEST_F(ModelProbeTest, CandidatesAreTheUsersTokensOnly) {
  const EncodedPair pair = Encoded("hello you", "yes", "no!");
  std::string text;
  for (int64_t position : pair.candidates) {
    EXPECT_FALSE(loaded_->tokenizer->IsSpecial(pair.prompt[position]));
    text += probe_.TokenText(pair.prompt[position]);
  }
  EXPECT_NE(text.find("hello you"), std::string::npos);
  EXPECT_LT(pair.candidates.size(), pair.prompt.size());
  EXPECT_EQ(pair.preferred.size(), 3u);
  EXPECT_EQ(probe_.Encode(Pair("hello", "", "no")).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(probe_.Encode(Pair("hello", std::string(600, 'x'), "no")).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// A13.1: zero embeddings make every logit zero.
TEST_F(ModelProbeTest, ZeroPromptAndAnswersCostLogVPerToken) {
  const EncodedPair pair = Encoded("hello", "a", "bc");
  const at::Tensor zero = at::zeros_like(probe_.Embed(pair.prompt)).unsqueeze(0);
  const auto margins = probe_.Margins(pair, MarginKind::kLikelihoodSum, zero, job_);
  ASSERT_TRUE(margins.ok());
  EXPECT_NEAR((*margins)[0], -std::log(static_cast<double>(probe_.vocab_size())), 1e-3);
}

// A13.2: the packed pass equals two separate ones.
TEST_F(ModelProbeTest, PackedMarginsAndGradientsEqualSeparatePasses) {
  const EncodedPair pair = Encoded("what is up", "all good", "no");
  const at::Tensor prompt = probe_.Embed(pair.prompt);
  const auto sum = probe_.Margins(pair, MarginKind::kPrefSum, at::stack({prompt, prompt}), job_);
  ASSERT_TRUE(sum.ok());
  EXPECT_NEAR((*sum)[0], Margin(pair, prompt, false), 1e-3);
  EXPECT_NEAR((*sum)[1], (*sum)[0], 1e-5);
  EXPECT_NEAR((*probe_.Margins(pair, MarginKind::kPrefMean, prompt.unsqueeze(0), job_))[0], Margin(pair, prompt, true),
              1e-4);

  const at::Tensor gradient = (*probe_.PromptGradients(pair, MarginKind::kPrefSum, prompt.unsqueeze(0), job_))[0];
  ASSERT_EQ(gradient.sizes(), prompt.sizes());
  std::mt19937 random(1);
  for (int check = 0; check < 5; ++check) {  // against finite differences
    const std::vector<float> values = RandomUnit(prompt.numel(), static_cast<uint32_t>(random()));
    const at::Tensor direction = at::tensor(values).view(prompt.sizes());
    const double step = 0.05;
    const double slope =
        (Margin(pair, prompt + step * direction, false) - Margin(pair, prompt - step * direction, false)) / (2 * step);
    EXPECT_NEAR((gradient * direction).sum().item<double>(), slope, 0.03 * std::abs(slope) + 0.02);
  }
}

TEST_F(ModelProbeTest, SharedPrefixMaskingEqualsWholePasses) {
  const EncodedPair pair = Encoded("masking this text", "one answer", "b");
  const at::Tensor mask = probe_.MaskEmbedding();
  std::vector<std::vector<int64_t>> sets = {{}, {pair.candidates[0]}, {pair.candidates[3], pair.candidates[1]}};
  for (int64_t position : pair.candidates) sets.push_back({position});
  for (int64_t batch : {4096, 64}) {  // one tree, and several
    probe_.set_batch_tokens(batch);
    const auto margins = probe_.MaskedMargins(pair, MarginKind::kPrefMean, sets, mask, job_);
    ASSERT_TRUE(margins.ok());
    for (size_t s = 0; s < sets.size(); ++s) {
      at::Tensor prompt = probe_.Embed(pair.prompt).clone();
      for (int64_t position : sets[s]) prompt[position].copy_(mask);
      EXPECT_NEAR((*margins)[s], Margin(pair, prompt, true), 1e-4) << s;
    }
  }
}

TEST_F(ModelProbeTest, SteeredMarginsEqualSteeringWholeSequences) {
  const std::vector<EncodedPair> pairs = {Encoded("first prompt", "good", "bad one"), Encoded("second", "x", "yy")};
  const auto low = RandomVector({1, 2}, probe_.hidden_size(), 1), high = RandomVector({2}, probe_.hidden_size(), 2);
  const auto attention = AtSite(Site::kAttentionOutput, {2, 3}, 3), mlp = AtSite(Site::kMlpOutput, {0, 3}, 4);
  std::vector<SteeringSetting> settings = {{}};
  for (ApplyTo apply_to : {ApplyTo::kAll, ApplyTo::kFromLastPrompt, ApplyTo::kResponse}) {
    settings.push_back({low, 0.3f, apply_to});
    settings.push_back({high, -0.2f, apply_to});
    settings.push_back({high, 0, apply_to});
    settings.push_back({attention, 0.5f, apply_to});
    settings.push_back({mlp, -0.4f, apply_to});
  }
  for (int64_t batch : {4096, 40}) {
    probe_.set_batch_tokens(batch);
    const auto margins = probe_.SteeredMargins({&pairs[0], &pairs[1]}, MarginKind::kPrefSum, settings, job_);
    ASSERT_TRUE(margins.ok());
    for (size_t p = 0; p < pairs.size(); ++p) {
      const auto length = static_cast<int64_t>(pairs[p].prompt.size());
      for (size_t s = 0; s < settings.size(); ++s) {
        double expected = 0;
        for (const auto* answer : {&pairs[p].preferred, &pairs[p].dispreferred}) {
          SteeringBank bank(1, probe_.num_layers(), probe_.hidden_size());
          SteeringRows rows;
          const int64_t total = length + static_cast<int64_t>(answer->size());
          rows.entries.resize(static_cast<size_t>(total) * kMaxSelections);
          if (settings[s].vector != nullptr) {
            const int32_t slot = *bank.Acquire(settings[s].vector);
            const int64_t from = PlannedSteering{.apply_to = settings[s].apply_to}.steer_from(length);
            for (int64_t row = from; row < total; ++row) {
              rows.entries[static_cast<size_t>(row) * kMaxSelections] = {slot, settings[s].strength};
            }
          }
          SteeringTap tap(bank, rows);
          expected += (answer == &pairs[p].preferred ? 1 : -1) * LogProb(probe_.Embed(pairs[p].prompt), *answer, tap);
        }
        EXPECT_NEAR((*margins)[p][s], expected, 2e-3) << p << " " << s;
      }
      EXPECT_EQ((*margins)[p][3], (*margins)[p][0]) << "strength 0 is the unsteered margin, bit for bit";
    }
  }
}

// A13.9: after the last block the norm does not matter, so neither does restoring it.
TEST_F(ModelProbeTest, AtTheLastBlockRestoringTheNormChangesNoLogits) {
  const EncodedPair pair = Encoded("last block", "good", "bad one");
  SteeringVectorSpec spec = RandomSpec({probe_.num_layers() - 1}, probe_.hidden_size(), 3);
  const auto kept = *SteeringVector::Create(spec);
  spec.operation = Operation::kAdd;
  const auto added = *SteeringVector::Create(spec);
  const auto margins = probe_.SteeredMargins({&pair}, MarginKind::kPrefSum,
                                             {{kept, 0.4f, ApplyTo::kAll}, {added, 0.4f, ApplyTo::kAll}, {}}, job_);
  ASSERT_TRUE(margins.ok());
  EXPECT_NEAR((*margins)[0][0], (*margins)[0][1], 1e-3);
  EXPECT_GT(std::abs((*margins)[0][0] - (*margins)[0][2]), 1e-2);
}

TEST_F(ModelProbeTest, SteeringGradientsPredictTheEffectOfASmallStrength) {
  const std::vector<EncodedPair> pairs = {Encoded("first prompt", "good", "bad one"), Encoded("second", "xx", "yyy")};
  const std::vector<int64_t> layers = {1, 2};
  const std::pair<ApplyTo, Site> cases[] = {{ApplyTo::kAll, Site::kBlockOutput},
                                            {ApplyTo::kFromLastPrompt, Site::kBlockOutput},
                                            {ApplyTo::kResponse, Site::kBlockOutput},
                                            {ApplyTo::kFromLastPrompt, Site::kAttentionOutput},
                                            {ApplyTo::kFromLastPrompt, Site::kMlpOutput}};
  for (const auto& [apply_to, site] : cases) {
    const at::Tensor gradients =
        probe_.SteeringGradients({&pairs[0], &pairs[1]}, MarginKind::kPrefMean, layers, apply_to, site);
    ASSERT_EQ(gradients.sizes(), (std::vector<int64_t>{2, 2, probe_.hidden_size()}));
    for (size_t l = 0; l < layers.size(); ++l) {
      for (uint32_t seed : {5u, 6u, 7u}) {
        const auto vector = AtSite(site, {layers[l]}, seed);
        const auto margins = *probe_.SteeredMargins({&pairs[0], &pairs[1]}, MarginKind::kPrefMean,
                                                    {{vector, 0.01f, apply_to}, {vector, -0.01f, apply_to}}, job_);
        const at::Tensor v = at::tensor(vector->spec().layers[0].direction);
        for (size_t p = 0; p < 2; ++p) {
          const double slope = (margins[p][0] - margins[p][1]) / 0.02;
          const double predicted =
              (gradients[static_cast<int64_t>(p)][static_cast<int64_t>(l)] * v).sum().item<double>();
          EXPECT_NEAR(predicted, slope, 0.05 * std::abs(slope) + 0.02);
        }
      }
    }
  }
}

TEST_F(ModelProbeTest, CapturesTheResidualStreamWhereAsked) {
  const EncodedPair pair = Encoded("capture", "good", "bad");
  const at::Tensor prompt = probe_.Embed(pair.prompt);
  class Reader final : public LayerTap {
   public:
    at::Tensor At(Site site, int64_t layer, at::Tensor hidden) override {
      if (site == Site::kBlockOutput) states[layer] = hidden.to(at::kFloat);
      return hidden;
    }
    bool Wants(Site site, int64_t) const override { return site == Site::kBlockOutput; }
    std::map<int64_t, at::Tensor> states;
  } reader;
  LogProb(prompt, pair.preferred, reader);
  const auto length = static_cast<int64_t>(pair.prompt.size());
  const auto check = [&](DeltaPosition position, int64_t first, int64_t count) {
    const at::Tensor states =
        probe_.CaptureStates({prompt, prompt}, {pair.preferred, pair.preferred}, position, {0, 2});
    for (int64_t l : {0, 1}) {
      const at::Tensor expected = reader.states[2 * l].narrow(0, first, count).mean(0);
      EXPECT_TRUE(at::allclose(states[0][l], expected, 1e-4, 1e-4));
      EXPECT_TRUE(at::allclose(states[1][l], expected, 1e-4, 1e-4));
    }
  };
  const auto answer = static_cast<int64_t>(pair.preferred.size());
  check(DeltaPosition::kLastPrompt, length - 1, 1);
  check(DeltaPosition::kLastResponse, length + answer - 1, 1);
  check(DeltaPosition::kMeanResponse, length, answer);
}

TEST_F(ModelProbeTest, NeutralDivergenceGrowsWithTheStrength) {
  const auto vector = RandomVector({1}, probe_.hidden_size(), 1);
  const auto kl = probe_.NeutralKl({{},
                                    {vector, 0, ApplyTo::kAll},
                                    {vector, 0.05f, ApplyTo::kAll},
                                    {vector, 0.2f, ApplyTo::kAll},
                                    {RandomVector({2}, probe_.hidden_size(), 2), 0.2f, ApplyTo::kAll}},
                                   job_);
  ASSERT_TRUE(kl.ok());
  EXPECT_EQ((*kl)[0], 0);
  EXPECT_EQ((*kl)[1], 0);
  EXPECT_GT((*kl)[2], 0);
  EXPECT_GT((*kl)[3], 4 * (*kl)[2]);
  EXPECT_GT((*kl)[4], 0);
  ModelProbe without(loaded_, {});
  EXPECT_EQ(without.NeutralKl({{}}, job_).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ModelProbeTest, WithoutATemplateAPromptIsReadAsItIs) {
  LoadedModel base = *loaded_;
  base.prompts = std::make_shared<PromptBuilder>(base.tokenizer, nullptr, /*add_bos=*/false);
  const ModelProbe probe(std::make_shared<const LoadedModel>(base), {});
  const absl::StatusOr<EncodedPair> pair = probe.Encode(Pair("hi you", "yes", "no"));
  ASSERT_TRUE(pair.ok()) << pair.status();
  EXPECT_EQ(pair->prompt, base.tokenizer->Encode("hi you", Tokenizer::SpecialTokens::kParse));
  EXPECT_EQ(pair->candidates.size(), pair->prompt.size());
  PreferencePair turns = Pair("hi you", "yes", "no");
  turns.prompt.insert(turns.prompt.begin(), {"system", "be kind"});
  EXPECT_EQ(probe.Encode(turns).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ModelProbeWithBos, NeutralTextBeginsWithBosAndIsSteeredAfterIt) {
  const auto loaded =
      LoadModel("tiny", "tests/golden/data/llama/tiny", {.precision = LoadOptions::Precision::kFloat32});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const TokenId bos = *(*loaded)->tokenizer->bos();
  const auto chunks = ChunkText(*(*loaded)->tokenizer, "plain words, nothing more", 5, 10);
  ASSERT_EQ(chunks.size(), 2u);
  for (const std::vector<TokenId>& chunk : chunks) {
    EXPECT_EQ(chunk.size(), 6u);
    EXPECT_EQ(chunk.front(), bos);
    EXPECT_EQ(std::count(chunk.begin(), chunk.end(), bos), 1);
  }
  ModelProbe probe(*loaded, {.neutral_text = {chunks[0]}});
  const auto vector = RandomVector({1}, probe.hidden_size(), 1);
  MemoryJob job;
  const auto kl = probe.NeutralKl({{vector, 0.1f, ApplyTo::kAll}}, job);
  ASSERT_TRUE(kl.ok()) << kl.status();

  // The slow reference: rows 1 to 5 steered, every second of them compared.
  at::NoGradGuard no_grad;
  const auto logprobs = [&](LayerTap& tap) {
    const TokenLayout layout = TokenLayout::Dense({{.length = 6}});
    DenseAttention attention;
    const at::Tensor hidden =
        (*loaded)->model->Forward(probe.Embed(chunks[0]), {.layout = layout, .attention = attention, .tap = tap});
    return at::log_softmax((*loaded)->model->Logits(hidden), -1);
  };
  IdentityTap identity;
  SteeringBank bank(1, probe.num_layers(), probe.hidden_size());
  SteeringRows rows;
  rows.entries.resize(6 * kMaxSelections);
  const int32_t slot = *bank.Acquire(vector);
  for (size_t row = 1; row < 6; ++row) rows.entries[row * kMaxSelections] = {slot, 0.1f};
  SteeringTap steering(bank, rows);
  const at::Tensor p = logprobs(identity), q = logprobs(steering);
  const at::Tensor each = (p.exp() * (p - q)).sum(-1);
  EXPECT_NEAR((*kl)[0], (each[1] + each[3] + each[5]).item<double>() / 3, 1e-5);
  EXPECT_GT((*kl)[0], 0);
}

TEST_F(ModelProbeTest, CheckpointsAreObeyed) {
  const EncodedPair pair = Encoded("stop here", "good", "bad");
  job_.stop_at = 1;
  EXPECT_EQ(probe_.MaskedMargins(pair, MarginKind::kPrefSum, {{}}, probe_.MaskEmbedding(), job_).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(probe_.SteeredMargins({&pair}, MarginKind::kPrefSum, {{}}, job_).status().code(),
            absl::StatusCode::kCancelled);
}

TEST(TokenForestTest, PositionsFollowThePaths) {
  const at::Tensor rows = at::zeros_like(at::tensor(std::vector<float>(8))).view({4, 2});
  TokenForest forest;
  const auto root = forest.Add({}, rows);
  const auto end = forest.Add({root.segment, 2}, rows.narrow(0, 0, 3));
  forest.Add(end, rows.narrow(0, 0, 1));
  forest.Add({}, rows.narrow(0, 0, 2));
  EXPECT_EQ(forest.Add(end, rows.narrow(0, 0, 0)).segment, end.segment);
  const TokenLayout layout = forest.Layout();
  const std::vector<int64_t> expected = {0, 1, 2, 3, 2, 3, 4, 5, 0, 1};
  ASSERT_EQ(layout.num_tokens, 10);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(layout.positions[static_cast<int64_t>(i)].item<int64_t>(), expected[i]);
  }
  ASSERT_EQ(layout.sequences.size(), 2u);
  EXPECT_EQ(layout.sequences[1].begin, 8);
}

}  // namespace
}  // namespace trimtab
