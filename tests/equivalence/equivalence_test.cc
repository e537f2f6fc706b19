// One forward pass for gradients and for serving: whatever the path, the same numbers (architecture.md, section 6).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "models/attention/dense_attention.h"
#include "models/kernels/packed_matrix.h"
#include "models/testing/paged_run.h"
#include "models/testing/tiny_model.h"
#include "steering/runtime/steering_bank.h"
#include "steering/runtime/steering_tap.h"
#include "tests/steering/testing/vectors.h"

namespace trimtab {
namespace {

constexpr int64_t kLength = 70;

std::vector<int64_t> RandomTokens(int64_t count, uint64_t seed, int64_t vocab = 256) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const at::Tensor tokens = at::randint(vocab, {count}, generator, at::kLong);
  return {tokens.const_data_ptr<int64_t>(), tokens.const_data_ptr<int64_t>() + count};
}

TokenLayout OneSequence(int64_t length, std::vector<int64_t> branches = {}) {
  SequenceSpan span;
  span.length = length;
  span.branches = std::move(branches);
  return TokenLayout::Dense({span});
}

at::Tensor DenseLogits(const CausalModel& model, const at::Tensor& embeddings, const TokenLayout& layout) {
  DenseAttention attention;
  IdentityTap tap;
  return model.Logits(model.Forward(embeddings, {layout, attention, tap}));
}

double MaxDifference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

enum class Form { kFloat32, kBFloat16, kGrouped };

class EquivalenceTest : public testing::TestWithParam<std::tuple<TinyArchitecture, Form>> {
 protected:
  const Form form_ = std::get<Form>(GetParam());
  const bool exact_ = form_ == Form::kFloat32;
  // Whether no row depends on its company, bit for bit.
  const bool independent_ =
      form_ == Form::kGrouped || PackedMatrix::Supports(form_ == Form::kBFloat16 ? at::kBFloat16 : at::kFloat);
  const std::shared_ptr<const CausalModel> model_ =
      MakeTinyModel({.architecture = std::get<TinyArchitecture>(GetParam()),
                     .dtype = form_ == Form::kBFloat16 ? at::kBFloat16 : at::kFloat,
                     .grouped = form_ == Form::kGrouped});
  const std::vector<int64_t> tokens_ = RandomTokens(kLength, 11);
  const at::NoGradGuard no_grad_;

  at::Tensor InChunks(const std::vector<int64_t>& chunks) const {
    PagedRun run(*model_, 7, 16);
    std::vector<at::Tensor> logits;
    auto next = tokens_.begin();
    for (const int64_t chunk : chunks) {
      logits.push_back(run.Logits({{0, {next, next + chunk}}}));
      next += chunk;
    }
    return at::cat(logits);
  }
};

TEST_P(EquivalenceTest, DenseOneShotChunkedAndTokenByTokenAgree) {
  const at::Tensor dense = DenseLogits(*model_, model_->Embed(at::tensor(tokens_)), OneSequence(kLength));
  const at::Tensor one_shot = InChunks({kLength});
  const at::Tensor chunked = InChunks({1, 7, 16, 33, 13});
  const at::Tensor by_token = InChunks(std::vector<int64_t>(kLength, 1));
  // Narrow forms round at other places in the two backends; logits are of order 10 here.
  const double tolerance = exact_ ? 1e-3 : 1.5;
  EXPECT_LT(MaxDifference(dense, one_shot), tolerance);
  EXPECT_LT(((dense - one_shot).norm() / dense.norm()).item<double>(), exact_ ? 1e-5 : 0.02);
  if (independent_) {
    EXPECT_TRUE(at::equal(one_shot, chunked));
    EXPECT_TRUE(at::equal(one_shot, by_token));
  } else {
    EXPECT_LT(MaxDifference(one_shot, chunked), tolerance);
    EXPECT_LT(MaxDifference(one_shot, by_token), tolerance);
  }
}

TEST_P(EquivalenceTest, AMixedBatchGivesEachSequenceWhatItGetsAlone) {
  PagedRun together(*model_, 30, 16);
  std::vector<std::vector<int64_t>> prompts;
  std::vector<PagedRun::Chunk> chunks;
  for (int64_t i = 0; i < 5; ++i) {
    prompts.push_back(RandomTokens(5 + 17 * i, 100 + i));
    chunks.push_back({i, prompts.back()});
  }
  const at::Tensor batch = together.LastLogits(chunks);
  for (int64_t i = 0; i < 5; ++i) {
    PagedRun alone(*model_, 30, 16);
    const at::Tensor own = alone.LastLogits({{0, prompts[i]}});
    if (independent_) {
      EXPECT_TRUE(at::equal(batch.narrow(0, i, 1), own)) << i;
    } else {
      EXPECT_TRUE(at::allclose(batch.narrow(0, i, 1), own, 1e-3, exact_ ? 1e-3 : 0.3)) << i;
    }
  }
}

// Wants every site, changes nothing, remembers what it saw.
class RecordingTap final : public LayerTap {
 public:
  at::Tensor At(Site site, int64_t layer, at::Tensor hidden) override {
    seen.emplace_back(layer, site);
    states.push_back(hidden);
    return hidden;
  }
  bool Wants(Site, int64_t) const override { return true; }

  std::vector<std::pair<int64_t, Site>> seen;
  std::vector<at::Tensor> states;
};

TEST_P(EquivalenceTest, ATapThatChangesNothingChangesNoBit) {
  PagedRun plain(*model_, 7, 16), tapped(*model_, 7, 16);
  IdentityTap identity;
  RecordingTap recording;
  const at::Tensor expected = plain.Forward({{0, tokens_}}, identity);
  EXPECT_TRUE(at::equal(expected, tapped.Forward({{0, tokens_}}, recording)));
  std::vector<std::pair<int64_t, Site>> order;
  for (int64_t layer = 0; layer < 4; ++layer) {
    for (const Site site : {Site::kAttentionHeads, Site::kAttentionOutput, Site::kMlpOutput, Site::kBlockOutput}) {
      order.emplace_back(layer, site);
    }
  }
  EXPECT_EQ(recording.seen, order);
  EXPECT_EQ(expected.scalar_type(), at::kFloat);
  for (size_t i = 0; i < recording.states.size(); ++i) {
    const ModelSpec& spec = model_->spec();
    const int64_t width = order[i].second == Site::kAttentionHeads ? spec.num_heads * spec.head_dim : spec.hidden_size;
    EXPECT_EQ(recording.states[i].sizes(), (std::vector<int64_t>{kLength, width}));
    EXPECT_EQ(recording.states[i].scalar_type(), at::kFloat);
  }
}

// Steering at all three sites, by single rows as serving does or by whole tensors; a row's steering is its own.
class SteeredEquivalenceTest : public EquivalenceTest {
 protected:
  SteeredEquivalenceTest() {
    for (const Site site : {Site::kBlockOutput, Site::kAttentionOutput, Site::kMlpOutput}) {
      SteeringVectorSpec spec = RandomSpec({0, 2, 3}, model_->spec().hidden_size, 40 + static_cast<uint32_t>(site));
      spec.site = site;
      slots_.push_back(*bank_.Acquire(*SteeringVector::Create(spec)));
    }
  }
  // Row r is steered at the sites of the bits of r / 7.
  SteeringRows Rows(float strength) const {
    SteeringRows rows;
    rows.entries.resize(kLength * kMaxSelections);
    for (size_t row = 0; row < static_cast<size_t>(kLength); ++row) {
      for (size_t s = 0; s < slots_.size(); ++s) {
        if ((row / 7 >> s & 1) != 0) rows.entries[row * kMaxSelections + s] = {slots_[s], strength};
      }
    }
    return rows;
  }

  SteeringBank bank_{3, model_->spec().num_layers(), model_->spec().hidden_size};
  std::vector<int32_t> slots_;
};

// Hides that the tap's edits are of single rows.
class WholeTensorTap final : public LayerTap {
 public:
  explicit WholeTensorTap(LayerTap& tap) : tap_(tap) {}
  at::Tensor At(Site site, int64_t layer, at::Tensor hidden) override { return tap_.At(site, layer, hidden); }
  bool Wants(Site site, int64_t layer) const override { return tap_.Wants(site, layer); }

 private:
  LayerTap& tap_;
};

TEST_P(SteeredEquivalenceTest, FusedEditsOfAllSitesAreThoseOfWholeTensors) {
  const SteeringRows rows = Rows(0.3f);
  SteeringTap fused(bank_, rows), whole(bank_, rows);
  WholeTensorTap wrapped(whole);
  PagedRun one(*model_, 7, 16), other(*model_, 7, 16), plain(*model_, 7, 16);
  IdentityTap identity;
  const at::Tensor expected = other.Forward({{0, tokens_}}, wrapped).clone();
  const at::Tensor unsteered = plain.Forward({{0, tokens_}}, identity);
  EXPECT_TRUE(at::equal(one.Forward({{0, tokens_}}, fused), expected));
  EXPECT_EQ(fused.row_dose(), whole.row_dose());
  EXPECT_GT(MaxDifference(expected, unsteered), 0.1);

  // And of the blocks that gradients take.
  SteeringTap dense(bank_, rows);
  DenseAttention attention;
  const TokenLayout layout = OneSequence(kLength);
  const at::AutoGradMode grad(true);
  const at::Tensor differentiable =
      model_->Forward(model_->Embed(at::tensor(tokens_)).requires_grad_(true), {layout, attention, dense}).detach();
  EXPECT_LT(((differentiable - expected).norm() / expected.norm()).item<double>(), exact_ ? 1e-5 : 0.08);
}

TEST_P(SteeredEquivalenceTest, StrengthZeroAtAnySiteChangesNoBit) {
  const SteeringRows rows = Rows(0);
  SteeringTap tap(bank_, rows);
  IdentityTap identity;
  PagedRun steered(*model_, 7, 16), plain(*model_, 7, 16);
  EXPECT_TRUE(at::equal(steered.Forward({{0, tokens_}}, tap), plain.Forward({{0, tokens_}}, identity)));
}

TEST_P(EquivalenceTest, EarlyExitIsTheBlockOutput) {
  const TokenLayout layout = OneSequence(kLength);
  const at::Tensor embeddings = model_->Embed(at::tensor(tokens_));
  DenseAttention attention;
  RecordingTap recording;
  IdentityTap identity;
  model_->Forward(embeddings, {layout, attention, recording});
  for (int64_t count = 0; count <= 4; ++count) {
    const at::Tensor exit = model_->Forward(embeddings, {layout, attention, identity, count});
    EXPECT_TRUE(at::equal(exit, count == 0 ? embeddings.to(at::kFloat) : recording.states[4 * count - 1])) << count;
  }
}

TEST_P(EquivalenceTest, StartingAtABlockContinuesThePass) {
  const TokenLayout layout = OneSequence(kLength);
  DenseAttention attention;
  RecordingTap recording;
  IdentityTap identity;
  const at::Tensor whole = model_->Forward(model_->Embed(at::tensor(tokens_)), {layout, attention, recording});
  for (int64_t first = 1; first <= 4; ++first) {
    const at::Tensor entering = recording.states[4 * first - 1];
    EXPECT_TRUE(at::equal(
        whole,
        model_->Forward(entering, {.layout = layout, .attention = attention, .tap = identity, .first_layer = first})))
        << first;
  }
}

TEST_P(EquivalenceTest, ZeroEmbeddingsGiveTheUniformDistribution) {
  if (model_->spec().layers[0].qkv_bias) GTEST_SKIP() << "values are their biases";
  const at::Tensor logits = DenseLogits(*model_, at::zeros({kLength, 32}), OneSequence(kLength));
  const at::Tensor log_prob = at::log_softmax(logits, -1);
  EXPECT_LT(MaxDifference(log_prob, at::full_like(log_prob, -std::log(model_->spec().vocab_size))), 1e-5);
}

constexpr TinyArchitecture kArchitectures[] = {TinyArchitecture::kLlama, TinyArchitecture::kQwen2,
                                               TinyArchitecture::kMistral, TinyArchitecture::kGemma3};

std::string NameOf(TinyArchitecture architecture) {
  switch (architecture) {
    case TinyArchitecture::kLlama:
      return "Llama";
    case TinyArchitecture::kQwen2:
      return "Qwen2";
    case TinyArchitecture::kMistral:
      return "Mistral";
    case TinyArchitecture::kGemma3:
      return "Gemma3";
  }
  return "";
}

std::string NameOf(Form form) {
  return form == Form::kFloat32 ? "Float32" : form == Form::kBFloat16 ? "BFloat16" : "Grouped";
}

const auto kForms = testing::Combine(testing::ValuesIn(kArchitectures),
                                     testing::Values(Form::kFloat32, Form::kBFloat16, Form::kGrouped));

std::string NameOf(const testing::TestParamInfo<std::tuple<TinyArchitecture, Form>>& info) {
  return NameOf(std::get<TinyArchitecture>(info.param)) + NameOf(std::get<Form>(info.param));
}

INSTANTIATE_TEST_SUITE_P(Forms, EquivalenceTest, kForms, [](const auto& info) { return NameOf(info); });
INSTANTIATE_TEST_SUITE_P(Forms, SteeredEquivalenceTest, kForms, [](const auto& info) { return NameOf(info); });

TEST(PlainArithmeticTest, IntegersComputeAsGradientsDo) {
  const std::shared_ptr<const CausalModel> model = MakeTinyModel({.grouped = true});
  const TokenLayout layout = OneSequence(kLength);
  const at::Tensor embeddings = model->Embed(at::tensor(RandomTokens(kLength, 11)));
  const auto logits = [&](const at::Tensor& x, Arithmetic arithmetic) {
    DenseAttention attention;
    IdentityTap tap;
    const ForwardContext context{.layout = layout, .attention = attention, .tap = tap, .arithmetic = arithmetic};
    return model->Logits(model->Forward(x, context), nullptr, arithmetic).detach();
  };
  const at::Tensor gradient = logits(embeddings.clone().requires_grad_(true), Arithmetic::kPlain);
  EXPECT_LT(MaxDifference(gradient, logits(embeddings, Arithmetic::kPlain)), 1e-3);
  EXPECT_GT(MaxDifference(gradient, logits(embeddings, Arithmetic::kIntegers)), 1e-2);
}

// [prompt | preferred | dispreferred] and the difference of the two log-probabilities.
class GradientTest : public testing::TestWithParam<TinyArchitecture> {
 protected:
  static constexpr int64_t kPrompt = 24, kPreferred = 5, kDispreferred = 3;  // more than a window
  const std::shared_ptr<const CausalModel> model_ = MakeTinyModel({.architecture = GetParam()});
  const std::vector<int64_t> tokens_ = RandomTokens(kPrompt + kPreferred + kDispreferred, 21);
  const at::Tensor ids_ = at::tensor(tokens_);
  const at::Tensor embeddings_ = model_->Embed(ids_);

  // Sum of the log-probabilities of `answer` [n], of which the first is predicted by `first_row` of the logits and the
  // others by the rows from `next_row` on.
  static at::Tensor AnswerLogProb(const at::Tensor& logits, const at::Tensor& answer, int64_t first_row,
                                  int64_t next_row) {
    const at::Tensor log_prob = at::log_softmax(logits, -1);
    at::Tensor sum = log_prob[first_row][answer[0].item<int64_t>()];
    for (int64_t i = 1; i < answer.size(0); ++i) sum = sum + log_prob[next_row + i - 1][answer[i].item<int64_t>()];
    return sum;
  }
  at::Tensor Packed(const at::Tensor& embeddings) const {
    const at::Tensor logits =
        DenseLogits(*model_, embeddings, OneSequence(embeddings.size(0), {kPreferred, kDispreferred}));
    return AnswerLogProb(logits, ids_.narrow(0, kPrompt, kPreferred), kPrompt - 1, kPrompt) -
           AnswerLogProb(logits, ids_.narrow(0, kPrompt + kPreferred, kDispreferred), kPrompt - 1,
                         kPrompt + kPreferred);
  }
  at::Tensor Separate(const at::Tensor& embeddings) const {
    const auto one = [&](int64_t begin, int64_t length) {
      const at::Tensor input = at::cat({embeddings.narrow(0, 0, kPrompt), embeddings.narrow(0, begin, length)});
      return AnswerLogProb(DenseLogits(*model_, input, OneSequence(kPrompt + length)), ids_.narrow(0, begin, length),
                           kPrompt - 1, kPrompt);
    };
    return one(kPrompt, kPreferred) - one(kPrompt + kPreferred, kDispreferred);
  }
};

TEST_P(GradientTest, PackedBranchesEqualTwoPasses) {
  const at::Tensor x = embeddings_.clone().requires_grad_(true);
  const at::Tensor packed = Packed(x), separate = Separate(x);
  const double value = packed.item<double>();
  EXPECT_NEAR(value, separate.item<double>(), 1e-4 * std::max(1.0, std::abs(value)));
  const at::Tensor a = torch::autograd::grad({packed}, {x})[0], b = torch::autograd::grad({separate}, {x})[0];
  EXPECT_LT(((a - b).norm() / b.norm()).item<double>(), 1e-4);
  EXPECT_GT(b.norm().item<double>(), 0.1);
}

TEST_P(GradientTest, MatchesFiniteDifferences) {
  const at::Tensor x = embeddings_.clone().requires_grad_(true);
  const at::Tensor gradient = torch::autograd::grad({Packed(x)}, {x})[0];
  at::Generator generator = at::detail::createCPUGenerator(31);
  const at::NoGradGuard no_grad;
  for (int i = 0; i < 8; ++i) {
    at::Tensor direction = at::randn(embeddings_.sizes(), generator, at::kFloat);
    // Half random, half along the gradient, so that the slope is well above the rounding of float32.
    direction = direction / direction.norm() + gradient / gradient.norm();
    constexpr double kStep = 4e-3;
    const double slope =
        (Packed(embeddings_ + kStep * direction) - Packed(embeddings_ - kStep * direction)).item<double>() /
        (2 * kStep);
    const double expected = (gradient * direction).sum().item<double>();
    EXPECT_NEAR(slope, expected, 0.02 * std::abs(expected)) << i;
  }
}

TEST_P(GradientTest, TheGradientPathComputesWhatServingDoes) {
  const TokenLayout layout = OneSequence(embeddings_.size(0));
  const at::Tensor with = DenseLogits(*model_, embeddings_.clone().requires_grad_(true), layout);
  EXPECT_TRUE(with.requires_grad());
  const at::Tensor without = DenseLogits(*model_, embeddings_, layout);
  EXPECT_FALSE(without.requires_grad());
  EXPECT_LT(MaxDifference(with, without), 1e-4);
}

TEST_P(GradientTest, BFloat16GradientsPointTheSameWay) {
  const std::shared_ptr<const CausalModel> narrow = MakeTinyModel({.architecture = GetParam(), .dtype = at::kBFloat16});
  const auto gradient = [&](const CausalModel& model) {
    const at::Tensor x = embeddings_.clone().requires_grad_(true);
    const at::Tensor logits = DenseLogits(model, x, OneSequence(x.size(0)));
    return torch::autograd::grad({AnswerLogProb(logits, ids_.narrow(0, kPrompt, kPreferred), kPrompt - 1, kPrompt)},
                                 {x})[0]
        .flatten();
  };
  const at::Tensor a = gradient(*model_), b = gradient(*narrow);
  // Random networks are rough: Mistral's windows, in all layers, make the directions differ most.
  EXPECT_GT((a.dot(b) / (a.norm() * b.norm())).item<double>(), 0.9);
}

INSTANTIATE_TEST_SUITE_P(Architectures, GradientTest, testing::ValuesIn(kArchitectures),
                         [](const auto& info) { return NameOf(info.param); });

}  // namespace
}  // namespace trimtab
