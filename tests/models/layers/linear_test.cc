#include "models/layers/linear.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

namespace trimtab {
namespace {

TEST(LinearTest, MatchesAtLinearInBothTypes) {
  at::manual_seed(1);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t inner : {33, 64}) {  // an odd inner dimension cannot be packed in bfloat16
      const at::Tensor weight = at::randn({40, inner}).to(type), bias = at::randn({40}).to(type);
      const at::Tensor x = at::randn({7, inner}).to(type);
      const Linear linear(weight, bias);
      const at::Tensor expected = at::linear(x, weight, bias);
      EXPECT_TRUE(at::allclose(linear(x).to(at::kFloat), expected.to(at::kFloat), 1e-2, 1e-2));
      EXPECT_EQ(linear(x).scalar_type(), type);
      EXPECT_EQ(linear.ToFloat(x).scalar_type(), at::kFloat);
    }
  }
}

TEST(LinearTest, GradientReachesTheInput) {
  const at::Tensor weight = at::randn({8, 6});
  const at::Tensor x = at::randn({2, 6}).requires_grad_(true);
  const at::Tensor sum = Linear(weight).ToFloat(x).sum();
  EXPECT_TRUE(at::allclose(torch::autograd::grad({sum}, {x})[0], weight.sum(0).expand({2, 6}), 1e-5, 1e-5));
}

}  // namespace
}  // namespace trimtab
