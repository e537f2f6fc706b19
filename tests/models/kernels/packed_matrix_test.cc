#include "models/kernels/packed_matrix.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <tuple>

namespace trimtab {
namespace {

// (N, K) x type.
class PackedMatrixTest : public testing::TestWithParam<std::tuple<std::tuple<int64_t, int64_t>, at::ScalarType>> {
 protected:
  void SetUp() override {
    at::manual_seed(5);
    if (!PackedMatrix::Supports(type())) GTEST_SKIP() << "this processor lacks the kernels";
    weight_ = at::randn({n(), k()}).to(type());
    bias_ = at::randn({n()}).to(type());
  }
  int64_t n() const { return std::get<0>(std::get<0>(GetParam())); }
  int64_t k() const { return std::get<1>(std::get<0>(GetParam())); }
  at::ScalarType type() const { return std::get<1>(GetParam()); }

  at::Tensor weight_, bias_;
};

TEST_P(PackedMatrixTest, MatchesTheProductInDouble) {
  const PackedMatrix packed(weight_);
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    for (const int64_t rows : {1, 3, 64, 65, 200}) {
      const at::Tensor x = at::randn({rows, k()}).to(type());
      const at::Tensor exact = at::matmul(x.to(at::kDouble), weight_.to(at::kDouble).t());
      const at::Tensor sums = packed.Multiply(x, {}, at::kFloat);
      EXPECT_TRUE(at::allclose(sums.to(at::kDouble), exact, 1e-5, 1e-5 * k())) << rows;
      const at::Tensor with_bias = packed.Multiply(x, bias_, type());
      EXPECT_EQ(with_bias.scalar_type(), type());
      EXPECT_TRUE(at::equal(with_bias, (sums + bias_.to(at::kFloat)).to(type()))) << rows;
    }
  }
}

TEST_P(PackedMatrixTest, ARowDoesNotDependOnTheOthers) {
  const PackedMatrix packed(weight_);
  const at::Tensor x = at::randn({150, k()}).to(type());
  const at::Tensor all = packed.Multiply(x, {}, at::kFloat);
  for (const int64_t row : {0, 63, 64, 149}) {
    EXPECT_TRUE(at::equal(all.narrow(0, row, 1), packed.Multiply(x.narrow(0, row, 1), {}, at::kFloat))) << row;
  }
  EXPECT_TRUE(at::equal(all.narrow(0, 10, 21), packed.Multiply(x.narrow(0, 10, 21), {}, at::kFloat)));
}

TEST_P(PackedMatrixTest, NoRowsGiveNoRows) {
  EXPECT_EQ(PackedMatrix(weight_).Multiply(at::empty({0, k()}, type()), {}, at::kFloat).sizes(),
            (at::IntArrayRef{0, n()}));
}

INSTANTIATE_TEST_SUITE_P(Grid, PackedMatrixTest,
                         testing::Combine(testing::Values(std::tuple{64, 32}, std::tuple{1, 2}, std::tuple{97, 34},
                                                          std::tuple{960, 576}, std::tuple{130, 1536}),
                                          testing::Values(at::kFloat, at::kBFloat16)));

}  // namespace
}  // namespace trimtab
