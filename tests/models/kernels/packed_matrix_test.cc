#include "models/kernels/packed_matrix.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "models/kernels/thread_team.h"

namespace trimtab {
namespace {

// (N, K) x type.
class PackedMatrixTest : public testing::TestWithParam<std::tuple<std::tuple<int64_t, int64_t>, at::ScalarType>> {
 protected:
  void SetUp() override {
    at::manual_seed(5);
    if (!PackedMatrix::Supports(type())) GTEST_SKIP() << "this processor lacks the kernels";
    weight_ = at::randn({n(), k()}).to(type());
    bias_ = at::randn({n()});
  }
  int64_t n() const { return std::get<0>(std::get<0>(GetParam())); }
  int64_t k() const { return std::get<1>(std::get<0>(GetParam())); }
  at::ScalarType type() const { return std::get<1>(GetParam()); }

  at::Tensor weight_, bias_;
};

at::Tensor Product(const PackedMatrix& packed, const at::Tensor& x, const at::Tensor& bias = {}) {
  at::Tensor out = at::empty({x.size(0), packed.rows()}, at::kFloat);
  packed.Multiply(x.const_data_ptr(), x.size(0), bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                  out.mutable_data_ptr<float>());
  return out;
}

TEST_P(PackedMatrixTest, MatchesTheProductInDouble) {
  const PackedMatrix packed(weight_);
  for (const int threads : {1, 2}) {
    ThreadTeam team(threads);
    const ScopedTeam scope(&team);
    for (const int64_t rows : {0, 1, 3, 64, 65, 200}) {
      const at::Tensor x = at::randn({rows, k()}).to(type());
      const at::Tensor exact = at::matmul(x.to(at::kDouble), weight_.to(at::kDouble).t());
      const at::Tensor sums = Product(packed, x);
      EXPECT_TRUE(at::allclose(sums.to(at::kDouble), exact, 1e-5, 1e-5 * k())) << rows;
      EXPECT_TRUE(at::equal(Product(packed, x, bias_), sums + bias_)) << rows;
    }
  }
}

TEST_P(PackedMatrixTest, ARowDoesNotDependOnTheOthers) {
  const PackedMatrix packed(weight_);
  const at::Tensor x = at::randn({150, k()}).to(type());
  const at::Tensor all = Product(packed, x);
  for (const int64_t row : {0, 63, 64, 149}) {
    EXPECT_TRUE(at::equal(all.narrow(0, row, 1), Product(packed, x.narrow(0, row, 1)))) << row;
  }
  for (int64_t count = 2; count <= 70; ++count) {  // over the sizes at which another kernel takes over
    EXPECT_TRUE(at::equal(all.narrow(0, 10, count), Product(packed, x.narrow(0, 10, count)))) << count;
  }
}

TEST_P(PackedMatrixTest, GivesTheWeightBack) {
  const PackedMatrix packed(weight_);
  EXPECT_TRUE(at::equal(packed.Unpack(), weight_));
  const at::Tensor numbers = at::tensor(std::vector<int64_t>{n() - 1, 0, n() / 2});
  EXPECT_TRUE(at::equal(packed.Rows(numbers), weight_.index_select(0, numbers)));
}

INSTANTIATE_TEST_SUITE_P(Grid, PackedMatrixTest,
                         testing::Combine(testing::Values(std::tuple{64, 32}, std::tuple{1, 2}, std::tuple{97, 34},
                                                          std::tuple{960, 576}, std::tuple{130, 1536}),
                                          testing::Values(at::kFloat, at::kBFloat16)));

}  // namespace
}  // namespace trimtab
