#include "models/kernels/ops.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

namespace trimtab {
namespace {

TEST(RopeTest, FusedMatchesReferenceOnAView) {
  at::manual_seed(3);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t rows : {1, 5, 130}) {
      for (const int64_t half : {3, 8, 37, 64}) {
        const at::Tensor x = at::randn({rows, 5, 2 * half}).to(type).narrow(1, 1, 3);
        const at::Tensor angles = at::randn({rows, half}) * 10, cos = angles.cos(), sin = angles.sin();
        const at::Tensor fused = cpu::Rope(x, cos, sin), expected = ref::Rope(x, cos, sin);
        ASSERT_EQ(fused.scalar_type(), type);
        // bfloat16: one unit in the last place, where the two round a tie apart.
        const double tolerance = type == at::kFloat ? 1e-5 : 1.0 / 128;
        EXPECT_TRUE(at::allclose(fused.to(at::kFloat), expected.to(at::kFloat), tolerance, tolerance / 4));
      }
    }
  }
}

TEST(RopeTest, GradientsFlowWhenWanted) {
  const at::Tensor x = at::randn({4, 1, 16}).requires_grad_(true), angles = at::randn({4, 8});
  EXPECT_TRUE(Rope(x, angles.cos(), angles.sin()).requires_grad());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(Rope(x, angles.cos(), angles.sin()).requires_grad());
}

}  // namespace
}  // namespace trimtab
