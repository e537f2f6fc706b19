#include "steering/attribution/quadrature.h"

#include <gtest/gtest.h>

#include <cmath>

namespace trimtab {
namespace {

double Integrate(const QuadratureRule& rule, int power) {
  double sum = 0;
  for (size_t i = 0; i < rule.points.size(); ++i) sum += rule.weights[i] * std::pow(rule.points[i], power);
  return sum;
}

TEST(QuadratureTest, Fejer2IsExactForPolynomials) {
  for (int n : {1, 3, 7, 15, 31, 63, 127}) {
    const QuadratureRule rule = Fejer2(n);
    ASSERT_EQ(static_cast<int>(rule.points.size()), n);
    for (int power = 0; power < n; ++power) EXPECT_NEAR(Integrate(rule, power), 1.0 / (power + 1), 1e-12);
  }
}

TEST(QuadratureTest, Fejer2IsNestedAndOpen) {
  for (int n : {15, 31, 63}) {
    const QuadratureRule coarse = Fejer2(n), fine = Fejer2(2 * n + 1);
    for (int j = 0; j < n; ++j) EXPECT_NEAR(coarse.points[j], fine.points[2 * j + 1], 1e-15);
    EXPECT_GT(fine.points.front(), 0);
    EXPECT_LT(fine.points.back(), 1);
  }
}

TEST(QuadratureTest, GaussLegendreIsExactForPolynomials) {
  for (int n : {1, 2, 5, 20, 64}) {
    const QuadratureRule rule = GaussLegendre(n);
    for (int power = 0; power < 2 * n; ++power) EXPECT_NEAR(Integrate(rule, power), 1.0 / (power + 1), 1e-12) << n;
  }
}

// numpy.polynomial.legendre.leggauss(5), mapped to [0, 1].
TEST(QuadratureTest, GaussLegendreMatchesNumpy) {
  const QuadratureRule rule = GaussLegendre(5);
  const double points[] = {0.046910077030668, 0.2307653449471584, 0.5, 0.7692346550528415, 0.9530899229693319};
  const double weights[] = {0.11846344252809464, 0.2393143352496833, 0.2844444444444445, 0.2393143352496833,
                            0.11846344252809464};
  for (int i = 0; i < 5; ++i) {
    EXPECT_NEAR(rule.points[i], points[i], 1e-14);
    EXPECT_NEAR(rule.weights[i], weights[i], 1e-14);
  }
}

TEST(QuadratureTest, MidpointWeighsCellsAlike) {
  const QuadratureRule rule = Midpoint(4);
  EXPECT_EQ(rule.points, (std::vector<double>{0.125, 0.375, 0.625, 0.875}));
  EXPECT_EQ(rule.weights, std::vector<double>(4, 0.25));
}

}  // namespace
}  // namespace trimtab
