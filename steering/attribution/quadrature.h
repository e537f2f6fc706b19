// Rules for the integral over [0, 1] along the path of integrated gradients (steering.md A3). No torch. Any thread.
#ifndef TRIMTAB_STEERING_ATTRIBUTION_QUADRATURE_H_
#define TRIMTAB_STEERING_ATTRIBUTION_QUADRATURE_H_

#include <vector>

namespace trimtab {

// Integral of f over [0, 1] = sum of weights[i] * f(points[i]). Points ascend and lie inside (0, 1).
struct QuadratureRule {
  std::vector<double> points;
  std::vector<double> weights;
};

// Fejer's second rule with n points, n odd: exact for polynomials of degree n - 1. Nested: the points of n are every
// second point of 2n + 1.
QuadratureRule Fejer2(int n);
// Gauss-Legendre with n points: exact for polynomials of degree 2n - 1.
QuadratureRule GaussLegendre(int n);
// n cells of equal width, each represented by its middle.
QuadratureRule Midpoint(int n);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_ATTRIBUTION_QUADRATURE_H_
