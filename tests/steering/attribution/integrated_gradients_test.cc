#include "steering/attribution/integrated_gradients.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <numeric>
#include <random>

namespace trimtab {
namespace {

at::Tensor Normal(std::vector<int64_t> shape, uint32_t seed, float scale) {
  at::Tensor values = at::zeros(shape);
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  for (int64_t i = 0; i < values.numel(); ++i) values.data_ptr<float>()[i] = normal(generator);
  return values;
}

// A smooth toy: the mean embedding through a linear layer and a softmax; F is one log-probability.
class Toy {
 public:
  at::Tensor Value(const at::Tensor& embeddings) const {  // [L, D] -> scalar
    return at::log_softmax(at::matmul(embeddings.tanh().mean(0), weight_), -1)[2];
  }
  absl::StatusOr<at::Tensor> Gradients(const at::Tensor& embeddings) {  // [B, L, D]
    at::AutoGradMode grad(true);
    std::vector<at::Tensor> gradients;
    for (int64_t b = 0; b < embeddings.size(0); ++b) {
      const at::Tensor leaf = embeddings[b].detach().clone().requires_grad_(true);
      gradients.push_back(torch::autograd::grad({Value(leaf)}, {leaf})[0]);
    }
    calls_ += static_cast<int>(embeddings.size(0));
    return at::stack(gradients);
  }
  int calls() const { return calls_; }

 private:
  const at::Tensor weight_ = Normal({8, 5}, 1, 2);
  int calls_ = 0;
};

class IntegratedGradientsTest : public ::testing::Test {
 protected:
  IntegratedGradientsTest() {
    for (int64_t position : candidates_) baseline_[position].zero_();
  }
  IntegratedGradientsResult Run(const IntegratedGradientsOptions& options) {
    return *IntegratedGradients(input_, baseline_, candidates_, toy_.Value(input_).item<double>(),
                                toy_.Value(baseline_).item<double>(), options,
                                [this](const at::Tensor& e) { return toy_.Gradients(e); });
  }
  Toy toy_;
  const std::vector<int64_t> candidates_ = {1, 3, 4};
  const at::Tensor input_ = Normal({6, 8}, 2, 3);
  at::Tensor baseline_ = input_.clone();
};

TEST_F(IntegratedGradientsTest, ScoresSumToTheDifference) {
  IntegratedGradientsOptions options{.tolerance = 1e-9};  // never met: all 127 points
  const IntegratedGradientsResult result = Run(options);
  EXPECT_EQ(result.points, 127);
  EXPECT_EQ(toy_.calls(), 127) << "gradients of coarser levels were not used again";
  const double sum = std::accumulate(result.scores.begin(), result.scores.end(), 0.0);
  const double difference = toy_.Value(input_).item<double>() - toy_.Value(baseline_).item<double>();
  EXPECT_NEAR(sum, difference, 0.01 * std::abs(difference));
  EXPECT_LT(result.completeness_error, 0.01);
}

TEST_F(IntegratedGradientsTest, StopsWhenTheErrorIsSmallAndTheSelectionStable) {
  const IntegratedGradientsResult result = Run({.tolerance = 0.05});
  EXPECT_TRUE(result.converged);
  EXPECT_EQ(result.points, 31) << "the second level is the first that can show stability";
}

TEST_F(IntegratedGradientsTest, FixedRulesAgreeWithTheAdaptiveOne) {
  const IntegratedGradientsResult adaptive = Run({});
  for (QuadratureKind kind : {QuadratureKind::kGaussLegendre, QuadratureKind::kMidpoint}) {
    const IntegratedGradientsResult fixed = Run({.quadrature = kind, .steps = 64});
    for (size_t i = 0; i < fixed.scores.size(); ++i) EXPECT_NEAR(fixed.scores[i], adaptive.scores[i], 1e-2);
    EXPECT_EQ(fixed.points, 64);
  }
}

TEST_F(IntegratedGradientsTest, AFailedGradientIsPassedOn) {
  const auto result = IntegratedGradients(input_, baseline_, candidates_, 1, 0, {}, [](const at::Tensor&) {
    return absl::StatusOr<at::Tensor>(absl::CancelledError("stop"));
  });
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
}

TEST_F(IntegratedGradientsTest, FirstOrderFormTakesCandidatesOnly) {
  const at::Tensor gradient = (*toy_.Gradients(input_.unsqueeze(0)))[0];
  const std::vector<double> scores = GradientTimesDifference(gradient, input_, baseline_, candidates_);
  ASSERT_EQ(scores.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(scores[i], (gradient[candidates_[i]] * input_[candidates_[i]]).sum().item<double>(), 1e-5);
  }
}

}  // namespace
}  // namespace trimtab
