#include "steering/attribution/smoothgrad.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>

namespace trimtab {
namespace {

at::Tensor Input() { return at::tensor({1.0f, 2.0f, -1.0f, 0.5f, 3.0f, -2.0f}).view({3, 2}); }  // [L = 3, D = 2]

TEST(SmoothGradTest, OfALinearFunctionIsExact) {
  const at::Tensor input = Input(), baseline = at::zeros_like(input);
  const at::Tensor slope = at::tensor({2.0f, -1.0f}).view({1, 1, 2});
  const auto gradients = [&](const at::Tensor& x) -> absl::StatusOr<at::Tensor> {
    return (at::ones_like(x) * slope).contiguous();
  };
  const auto scores = SmoothGrad(input, baseline, {0, 2}, {}, gradients);
  ASSERT_TRUE(scores.ok());
  ASSERT_EQ(scores->size(), 2u);
  EXPECT_NEAR((*scores)[0], 2 * 1 - 1 * 2, 1e-5);
  EXPECT_NEAR((*scores)[1], 2 * 3 - 1 * -2, 1e-5);
}

// F = sum of x^4 / 4: the gradient x^3 has the mean x^3 + 3 x sigma^2 under normal noise.
TEST(SmoothGradTest, AveragesOverNoiseOfTheRightSize) {
  const at::Tensor input = Input(), baseline = at::zeros_like(input);
  int64_t points = 0;
  const auto gradients = [&](const at::Tensor& x) -> absl::StatusOr<at::Tensor> {
    points += x.size(0);
    return x * x * x;
  };
  const SmoothGradOptions options{.samples = 4000, .noise = 0.5, .seed = 3};
  const auto scores = SmoothGrad(input, baseline, {0, 1, 2}, options, gradients);
  ASSERT_TRUE(scores.ok());
  EXPECT_EQ(points, 4000);
  const double variance = 0.25 * (1 + 4 + 1 + 0.25 + 9 + 4) / 6;
  for (int64_t i = 0; i < 3; ++i) {
    double expected = 0, scale = 0;
    for (int64_t d = 0; d < 2; ++d) {
      const double x = input[i][d].item<double>();
      expected += x * (x * x * x + 3 * x * variance);
      scale += std::abs(x * x * x * x) + 1;
    }
    EXPECT_NEAR((*scores)[static_cast<size_t>(i)], expected, 0.1 * scale);
  }
}

TEST(SmoothGradTest, DependsOnSeedAndStreamOnly) {
  const at::Tensor input = Input(), baseline = at::zeros_like(input);
  const auto gradients = [](const at::Tensor& x) -> absl::StatusOr<at::Tensor> { return x * x * x; };
  const auto scores = [&](uint64_t seed, uint64_t stream) {
    return *SmoothGrad(input, baseline, {1}, {.seed = seed, .stream = stream}, gradients);
  };
  EXPECT_EQ(scores(1, 2), scores(1, 2));
  EXPECT_NE(scores(1, 2), scores(1, 3));
  EXPECT_NE(scores(1, 2), scores(2, 2));
}

TEST(SmoothGradTest, PassesErrorsOn) {
  const at::Tensor input = Input();
  const auto gradients = [](const at::Tensor&) -> absl::StatusOr<at::Tensor> { return absl::CancelledError(""); };
  EXPECT_EQ(SmoothGrad(input, input, {1}, {}, gradients).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace trimtab
