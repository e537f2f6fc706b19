#include "steering/attribution/pca.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <random>

namespace trimtab {
namespace {

at::Tensor Rows(int64_t m, int64_t d, uint32_t seed, float mean) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(mean, 1);
  at::Tensor rows = at::zeros({m, d});
  for (int64_t i = 0; i < rows.numel(); ++i) rows.data_ptr<float>()[i] = normal(generator);
  return rows;
}

TEST(PcaTest, MatchesScikitLearn) {
  constexpr int64_t kDirections = 3;
  std::ifstream golden("tests/golden/pca_golden.txt");
  const auto next = [&] {
    double value = NAN;
    golden >> value;
    return value;
  };
  int64_t m = 0, d = 0;
  int cases = 0;
  while (golden >> m >> d) {
    SCOPED_TRACE(m);
    ++cases;
    std::vector<float> values(static_cast<size_t>(m * d));
    for (float& x : values) x = static_cast<float>(next());
    const PrincipalDirections pca = UncentredPca(at::tensor(values).view({m, d}), kDirections);
    const auto leading = static_cast<int64_t>(next());
    ASSERT_EQ(leading, std::min(m, d) - 1);
    for (int64_t i = 0; i < leading; ++i) {
      const double eigenvalue = next();
      EXPECT_NEAR(pca.eigenvalues[i], eigenvalue, 1e-6 * eigenvalue);
    }
    EXPECT_NEAR(pca.explained_variance, next(), 1e-9);
    ASSERT_EQ(pca.directions.size(0), kDirections);
    for (int64_t r = 0; r < kDirections; ++r) {
      for (int64_t i = 0; i < d; ++i) EXPECT_NEAR(pca.directions[r][i].item<double>(), next(), 1e-6) << r;
    }
  }
  EXPECT_EQ(cases, 3) << "the last has more rows than Jacobi takes";
}

TEST(PcaTest, DirectionsAreOrthonormal) {
  const at::Tensor directions = UncentredPca(Rows(20, 30, 1, 0.2f), 8).directions;
  ASSERT_EQ(directions.size(0), 8);
  const at::Tensor products = at::matmul(directions, directions.t());
  for (int64_t i = 0; i < 8; ++i) {
    for (int64_t j = 0; j < 8; ++j) EXPECT_NEAR(products[i][j].item<float>(), i == j, 1e-5);
  }
}

// A13.5: the sign is that of the mean, so turning every row round turns the direction round, exactly.
TEST(PcaTest, TurningTheRowsTurnsTheDirection) {
  const at::Tensor rows = Rows(15, 9, 2, 0.4f);
  EXPECT_TRUE(at::equal(UncentredPca(-rows, 1).directions, -UncentredPca(rows, 1).directions));
}

TEST(PcaTest, DegenerateRows) {
  EXPECT_EQ(UncentredPca(at::zeros({4, 6}), 2).directions.size(0), 0);
  EXPECT_EQ(UncentredPca(at::zeros({4, 6}), 2).explained_variance, 0);
  const at::Tensor row = Rows(1, 6, 3, 0);
  const PrincipalDirections repeated = UncentredPca(row.expand({5, 6}), 4);
  EXPECT_EQ(repeated.directions.size(0), 1);
  EXPECT_NEAR(repeated.explained_variance, 1, 1e-9);
  EXPECT_NEAR(Cosine(repeated.directions[0], row[0]), 1, 1e-6);
}

TEST(PcaTest, JacobiDiagonalizes) {
  const Eigen eigen = SymmetricEigen({2, 1, 0, 1, 2, 0, 0, 0, 5}, 3);
  EXPECT_NEAR(eigen.values[0], 5, 1e-12);
  EXPECT_NEAR(eigen.values[1], 3, 1e-12);
  EXPECT_NEAR(eigen.values[2], 1, 1e-12);
  EXPECT_NEAR(std::abs(eigen.vectors[0 * 3 + 1]), std::sqrt(0.5), 1e-12);
}

TEST(StabilityTest, AgreementIsHighForACommonDirectionAndLowForNoise) {
  const auto stability = [](const at::Tensor& rows) {
    const auto direction_of = [&](const std::vector<size_t>& sample) {
      const std::vector<int64_t> index(sample.begin(), sample.end());
      return UncentredPca(rows.index_select(0, at::tensor(index)), 1).directions[0];
    };
    std::vector<size_t> all(static_cast<size_t>(rows.size(0)));
    for (size_t i = 0; i < all.size(); ++i) all[i] = i;
    return std::pair(BootstrapStability(direction_of(all), all.size(), direction_of, 20, 1),
                     SplitHalfCosine(all.size(), direction_of, 1));
  };
  const auto common = stability(Rows(40, 30, 4, 2));
  const auto noise = stability(Rows(40, 30, 5, 0));
  EXPECT_GT(common.first, 0.95);
  EXPECT_GT(common.second, 0.9);
  EXPECT_LT(noise.first, 0.9);
  EXPECT_LT(noise.second, 0.6);
}

}  // namespace
}  // namespace trimtab
