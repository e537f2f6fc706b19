#include "models/layers/sliced_product.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

namespace trimtab {
namespace {

TEST(SlicedProductTest, IsTheProductAndSoIsItsGradient) {
  at::manual_seed(1);
  const at::Tensor table = at::randn({4096 + 70, 32});  // a slice and a piece that is no whole task
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Linear weight(table.to(type));
    const at::Tensor exact = table.to(type).to(at::kFloat);
    at::Tensor x = at::randn({5, 32}).requires_grad_(true);
    const at::Tensor product = SlicedProduct(x, weight), expected = at::matmul(x, exact.t());
    EXPECT_TRUE(at::allclose(product, expected, 1e-4, 1e-4));
    const at::Tensor factor = at::randn(product.sizes());
    const auto gradient = [&](const at::Tensor& of) { return torch::autograd::grad({(of * factor).sum()}, {x})[0]; };
    const at::Tensor a = gradient(product), b = gradient(expected);
    EXPECT_LT(((a - b).norm() / b.norm()).item<float>(), 1e-5f);
  }
}

}  // namespace
}  // namespace trimtab
