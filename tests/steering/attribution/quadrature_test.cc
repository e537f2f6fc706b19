#include "steering/attribution/quadrature.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <string>

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

// Points and weights from numpy, integrals from scipy's adaptive quadrature.
TEST(QuadratureTest, MatchesNumpyAndScipy) {
  const std::map<std::string, QuadratureRule (*)(int)> rules = {{"gauss_legendre", GaussLegendre}, {"fejer2", Fejer2}};
  const std::map<std::string, double (*)(double)> functions = {
      {"sigmoid", [](double x) { return 1 / (1 + std::exp(-12 * (x - 0.3))); }},
      {"wave", [](double x) { return std::exp(x) * std::sin(9 * x); }},
      {"runge", [](double x) { return 1 / (1 + 25 * (2 * x - 1) * (2 * x - 1)); }},
  };
  std::ifstream golden("tests/golden/quadrature_golden.txt");
  std::string kind, name;
  int compared = 0, integrals = 0;
  while (golden >> kind >> name) {
    SCOPED_TRACE(name);
    if (kind == "rule") {
      int n = 0;
      golden >> n;
      const QuadratureRule rule = rules.at(name)(n);
      ASSERT_EQ(static_cast<int>(rule.points.size()), n);
      for (const std::vector<double>& values : {rule.points, rule.weights}) {
        for (double value : values) {
          double expected = NAN;
          golden >> expected;
          EXPECT_NEAR(value, expected, 1e-14) << n;
        }
      }
      ++compared;
      continue;
    }
    double expected = NAN;
    golden >> expected;
    const auto integral = [&](const QuadratureRule& rule) {
      double sum = 0;
      for (size_t i = 0; i < rule.points.size(); ++i) sum += rule.weights[i] * functions.at(name)(rule.points[i]);
      return sum;
    };
    EXPECT_NEAR(integral(GaussLegendre(64)), expected, 1e-8);
    EXPECT_NEAR(integral(Fejer2(127)), expected, 1e-8);
    EXPECT_NEAR(integral(Midpoint(512)), expected, 1e-4);
    // A nested level more never makes it worse than the level before by more than rounding.
    for (int n : {15, 31, 63}) {
      EXPECT_LE(std::abs(integral(Fejer2(2 * n + 1)) - expected), std::abs(integral(Fejer2(n)) - expected) + 1e-14);
    }
    ++integrals;
  }
  EXPECT_EQ(compared, 11);
  EXPECT_EQ(integrals, 3);
}

TEST(QuadratureTest, MidpointWeighsCellsAlike) {
  const QuadratureRule rule = Midpoint(4);
  EXPECT_EQ(rule.points, (std::vector<double>{0.125, 0.375, 0.625, 0.875}));
  EXPECT_EQ(rule.weights, std::vector<double>(4, 0.25));
}

}  // namespace
}  // namespace trimtab
