#include "models/kernels/ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <tuple>

namespace trimtab {
namespace {

// Restores the number of threads.
class Threads {
 public:
  explicit Threads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before_); }

 private:
  const int before_;
};

// Type x (rows, width) x threads. Widths are not all whole vectors.
class OpsTest : public testing::TestWithParam<std::tuple<at::ScalarType, std::tuple<int64_t, int64_t>, int>> {
 protected:
  void SetUp() override { at::manual_seed(3); }
  at::ScalarType type() const { return std::get<0>(GetParam()); }
  int64_t rows() const { return std::get<0>(std::get<1>(GetParam())); }
  int64_t width() const { return std::get<1>(std::get<1>(GetParam())); }
  // `magnitude` of the terms that make up the values.
  void ExpectClose(const at::Tensor& actual, const at::Tensor& expected, double magnitude = 1) const {
    ASSERT_EQ(actual.scalar_type(), expected.scalar_type());
    ASSERT_EQ(actual.sizes(), expected.sizes());
    // bfloat16: one unit in the last place, where the two round a tie apart.
    const double tolerance = type() == at::kFloat ? 1e-5 : 1.0 / 128;
    EXPECT_TRUE(at::allclose(actual.to(at::kFloat), expected.to(at::kFloat), tolerance, magnitude * tolerance / 4))
        << (actual.to(at::kFloat) - expected.to(at::kFloat)).abs().max().item<float>();
  }

  Threads threads_{std::get<2>(GetParam())};
};

TEST_P(OpsTest, RmsNormMatchesReference) {
  const at::Tensor x = at::randn({rows(), width()}) * 3, weight = at::randn({width()});
  ExpectClose(cpu::RmsNorm(x, weight, 1e-5, type()), ref::RmsNorm(x, weight, 1e-5, type()));
}

TEST_P(OpsTest, AddRmsNormIsItsTwoSteps) {
  const at::Tensor x = at::randn({rows(), width()}), y = at::randn({rows(), width()}), weight = at::randn({width()});
  const auto [sum, normed] = cpu::AddRmsNorm(x, y, weight, 1e-5, type());
  EXPECT_TRUE(at::equal(sum, x + y));
  EXPECT_TRUE(at::equal(normed, cpu::RmsNorm(x + y, weight, 1e-5, type())));
  ExpectClose(normed, ref::AddRmsNorm(x, y, weight, 1e-5, type()).second);
}

TEST_P(OpsTest, RopeMatchesReferenceOnAView) {
  const int64_t half = width();
  const at::Tensor x = at::randn({rows(), 5, 2 * half}).to(type());
  const at::Tensor angles = at::randn({rows(), half}) * 10;
  const at::Tensor cos = angles.cos(), sin = angles.sin();
  ExpectClose(cpu::Rope(x.narrow(1, 1, 3), cos, sin), ref::Rope(x.narrow(1, 1, 3), cos, sin));
}

TEST_P(OpsTest, GatedProductMatchesReference) {
  const at::Tensor x = (at::randn({rows(), 2 * width()}) * 8).to(type());
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
    ExpectClose(cpu::GatedProduct(x, activation), ref::GatedProduct(x, activation), /*magnitude=*/30);
  }
}

TEST_P(OpsTest, ARowDoesNotDependOnTheOthers) {
  const at::Tensor x = at::randn({rows(), 2 * width()}), weight = at::randn({2 * width()});
  const int64_t row = rows() / 2;
  EXPECT_TRUE(at::equal(cpu::RmsNorm(x, weight, 1e-5, type()).narrow(0, row, 1),
                        cpu::RmsNorm(x.narrow(0, row, 1), weight, 1e-5, type())));
  const at::Tensor y = x.to(type());
  EXPECT_TRUE(at::equal(cpu::GatedProduct(y, Activation::kSilu).narrow(0, row, 1),
                        cpu::GatedProduct(y.narrow(0, row, 1), Activation::kSilu)));
}

INSTANTIATE_TEST_SUITE_P(Grid, OpsTest,
                         testing::Combine(testing::Values(at::kFloat, at::kBFloat16),
                                          testing::Values(std::tuple{1, 8}, std::tuple{1, 3}, std::tuple{5, 37},
                                                          std::tuple{17, 64}, std::tuple{130, 576}),
                                          testing::Values(1, 2)));

TEST(OpsDispatchTest, GradientsFlowWhenWanted) {
  const at::Tensor x = at::randn({4, 16}).requires_grad_(true), weight = at::ones({16});
  EXPECT_TRUE(RmsNorm(x, weight, 1e-5, at::kFloat).requires_grad());
  EXPECT_TRUE(GatedProduct(x, Activation::kSilu).requires_grad());
  EXPECT_TRUE(AddRmsNorm(weight.expand({4, 16}), x, weight, 1e-5, at::kFloat).first.requires_grad());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(RmsNorm(x, weight, 1e-5, at::kFloat).requires_grad());
}

TEST(OpsTest, ActivationsOfExtremeInputsAreFinite) {
  const at::Tensor x = at::tensor({-1e4f, -100.f, -88.f, 0.f, 88.f, 100.f, 1e4f, 1.f}).repeat({2}).unsqueeze(0);
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
    const at::Tensor y = cpu::GatedProduct(x, activation);
    EXPECT_TRUE(at::isfinite(y).all().item<bool>()) << y;
    EXPECT_TRUE(at::allclose(y, ref::GatedProduct(x, activation), 1e-5, 1e-5));
  }
  const at::Tensor nan = at::full({1, 16}, NAN);
  EXPECT_TRUE(at::isnan(cpu::GatedProduct(nan, Activation::kSilu)).all().item<bool>());
  EXPECT_TRUE(at::isnan(cpu::RmsNorm(nan, at::ones({16}), 1e-5, at::kBFloat16)).all().item<bool>());
}

}  // namespace
}  // namespace trimtab
