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
#include "tests/steering/testing/memory_job.h"
#include "tests/steering/testing/pairs.h"
#include "tests/steering/testing/vectors.h"

namespace trimtab {
namespace {

class ModelProbeTest : public ::testing::Test {
 protected:
  ModelProbeTest() : probe_(loaded_, {.neutral_text = {{1, 2, 3, 4, 5, 6, 7, 8}, {9, 8, 7, 6}}}) {}

  // Log-probability of `answer` after prompt embeddings, in a pass of its own: the slow reference.
  double LogProb(const at::Tensor& prompt, const std::vector<TokenId>& answer, LayerTap& tap) const {
    at::NoGradGuard no_grad;
    const TokenLayout layout = TokenLayout::Dense({{.length = prompt.size(0) + static_cast<int64_t>(answer.size())}});
    DenseAttention attention;
    const at::Tensor hidden = loaded_->model->Forward(at::cat({prompt, probe_.Embed(answer)}),
                                                      {.layout = layout, .attention = attention, .tap = tap});
    const at::Tensor logprobs = at::log_softmax(loaded_->model->Logits(hidden), -1);
    double sum = 0;
    for (size_t t = 0; t < answer.size(); ++t) {
      sum += logprobs[prompt.size(0) - 1 + static_cast<int64_t>(t)][answer[t]].item<double>();
    }
    return sum;
  }
  double Margin(const EncodedPair& pair, const at::Tensor& prompt, bool mean) const {
    IdentityTap tap;
    const double p = LogProb(prompt, pair.preferred, tap), d = LogProb(prompt, pair.dispreferred, tap);
    return mean ? p / static_cast<double>(pair.preferred.size()) - d / static_cast<double>(pair.dispreferred.size())
                : p - d;
  }
  std::shared_ptr<const SteeringVector> AtSite(Site site, std::vector<int64_t> layers, uint32_t seed) const {
    SteeringVectorSpec spec = RandomSpec(std::move(layers), probe_.hidden_size(), seed);
    spec.site = site;
    return *SteeringVector::Create(spec);
  }
  EncodedPair Encoded(const char* prompt, const char* preferred, const char* dispreferred) const {
    return *probe_.Encode(Pair(prompt, preferred, dispreferred));
  }

  const std::shared_ptr<const LoadedModel> loaded_ = MakeTinyLoadedModel();
  ModelProbe probe_;
  MemoryJob job_;
};

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
  }
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
