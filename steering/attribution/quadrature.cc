#include "steering/attribution/quadrature.h"

#include <cmath>
#include <cstddef>
#include <numbers>

namespace trimtab {

QuadratureRule Fejer2(int n) {
  QuadratureRule rule;
  for (int j = 1; j <= n; ++j) {
    const double theta = j * std::numbers::pi / (n + 1);
    double sum = 0;
    for (int m = 1; m <= (n + 1) / 2; ++m) sum += std::sin((2 * m - 1) * theta) / (2 * m - 1);
    rule.points.push_back((1 - std::cos(theta)) / 2);
    rule.weights.push_back(2 * std::sin(theta) / (n + 1) * sum);
  }
  return rule;
}

QuadratureRule GaussLegendre(int n) {
  QuadratureRule rule;
  rule.points.resize(static_cast<size_t>(n));
  rule.weights.resize(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) {
    // Newton's method on the Legendre polynomial from Tricomi's estimate of its root.
    double x = std::cos(std::numbers::pi * (i + 0.75) / (n + 0.5));
    double derivative = 0;
    for (int step = 0; step < 100; ++step) {
      double previous = 1, current = x;  // P_0, P_1
      for (int k = 2; k <= n; ++k) {
        const double next = ((2 * k - 1) * x * current - (k - 1) * previous) / k;
        previous = current;
        current = next;
      }
      derivative = n * (x * current - previous) / (x * x - 1);
      const double change = current / derivative;
      x -= change;
      if (std::abs(change) < 1e-15) break;
    }
    const size_t place = static_cast<size_t>(n - 1 - i);  // roots come in descending order
    rule.points[place] = (1 + x) / 2;
    rule.weights[place] = 1 / ((1 - x * x) * derivative * derivative);
  }
  return rule;
}

QuadratureRule Midpoint(int n) {
  QuadratureRule rule;
  for (int i = 0; i < n; ++i) {
    rule.points.push_back((i + 0.5) / n);
    rule.weights.push_back(1.0 / n);
  }
  return rule;
}

}  // namespace trimtab
