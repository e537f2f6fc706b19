// Principal directions of activation differences: un-centred, because the mean is the signal (steering.md 0.6, A6).
// Any thread.
#ifndef TRIMTAB_STEERING_ATTRIBUTION_PCA_H_
#define TRIMTAB_STEERING_ATTRIBUTION_PCA_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace trimtab {

struct PrincipalDirections {
  at::Tensor directions;            // [rank, D] float32, unit rows, largest first; the sign is that of the mean
  std::vector<double> eigenvalues;  // of rows * rows^T, descending, all of them
  double explained_variance = 0;    // first eigenvalue over their sum; 0 when the rows are all zero
};

// Right singular vectors of `rows` [M, D] (float32, finite, M >= 1), by the Gram matrix [M, M] in double. Directions
// whose eigenvalue is below 1e-12 of the first are left out, so there may be fewer than `rank`.
PrincipalDirections UncentredPca(const at::Tensor& rows, int64_t rank);

// Eigenvalues (descending) and unit eigenvectors (columns, in that order) of a symmetric matrix [n, n] given row-major:
// cyclic Jacobi rotations, double.
struct Eigen {
  std::vector<double> values;
  std::vector<double> vectors;  // [n, n] row-major: vectors[i * n + j] is component i of eigenvector j
};
Eigen SymmetricEigen(std::vector<double> matrix, int64_t n);

double Cosine(const at::Tensor& a, const at::Tensor& b);  // [D] each; 0 when one is zero

// The direction that a set of rows (by index, repetitions allowed) gives: [D].
using DirectionOfRows = std::function<at::Tensor(const std::vector<size_t>& rows)>;

// Mean |cos| of `direction` with the directions of `resamples` bootstrap samples of `count` rows.
double BootstrapStability(const at::Tensor& direction, size_t count, const DirectionOfRows& direction_of, int resamples,
                          uint64_t seed);
// |cos| of the directions of two random halves; 0 with fewer than two rows.
double SplitHalfCosine(size_t count, const DirectionOfRows& direction_of, uint64_t seed);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_ATTRIBUTION_PCA_H_
