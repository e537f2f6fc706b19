#include "steering/attribution/pca.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "steering/attribution/random.h"

namespace trimtab {
namespace {

constexpr double kRelativeZero = 1e-12;
constexpr int kMaxSweeps = 64;
constexpr int64_t kMaxJacobi = 64;  // beyond it LAPACK: Jacobi's time grows with n^3 times a large factor

Eigen LapackEigen(const at::Tensor& gram) {
  const int64_t n = gram.size(0);
  const auto [values, vectors] = at::linalg_eigh(gram);  // ascending
  Eigen eigen{std::vector<double>(static_cast<size_t>(n)), std::vector<double>(static_cast<size_t>(n * n))};
  const auto value = values.accessor<double, 1>();
  const auto vector = vectors.accessor<double, 2>();
  for (int64_t j = 0; j < n; ++j) {
    eigen.values[j] = value[n - 1 - j];
    for (int64_t i = 0; i < n; ++i) eigen.vectors[i * n + j] = vector[i][n - 1 - j];
  }
  return eigen;
}

}  // namespace

Eigen SymmetricEigen(std::vector<double> a, int64_t n) {
  std::vector<double> v(static_cast<size_t>(n * n), 0.0);
  for (int64_t i = 0; i < n; ++i) v[i * n + i] = 1;
  double norm = 0;
  for (double x : a) norm += x * x;
  for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
    double off = 0;
    for (int64_t p = 0; p < n; ++p) {
      for (int64_t q = p + 1; q < n; ++q) off += a[p * n + q] * a[p * n + q];
    }
    if (off <= 1e-30 * norm) break;
    for (int64_t p = 0; p < n; ++p) {
      for (int64_t q = p + 1; q < n; ++q) {
        const double apq = a[p * n + q];
        if (apq == 0) continue;
        const double theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (int64_t i = 0; i < n; ++i) {  // columns p and q
          const double x = a[i * n + p], y = a[i * n + q];
          a[i * n + p] = c * x - s * y;
          a[i * n + q] = s * x + c * y;
        }
        for (int64_t i = 0; i < n; ++i) {  // rows p and q
          const double x = a[p * n + i], y = a[q * n + i];
          a[p * n + i] = c * x - s * y;
          a[q * n + i] = s * x + c * y;
        }
        for (int64_t i = 0; i < n; ++i) {
          const double x = v[i * n + p], y = v[i * n + q];
          v[i * n + p] = c * x - s * y;
          v[i * n + q] = s * x + c * y;
        }
      }
    }
  }
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return a[i * n + i] > a[j * n + j]; });
  Eigen eigen{std::vector<double>(static_cast<size_t>(n)), std::vector<double>(static_cast<size_t>(n * n))};
  for (int64_t j = 0; j < n; ++j) {
    eigen.values[j] = a[order[j] * n + order[j]];
    for (int64_t i = 0; i < n; ++i) eigen.vectors[i * n + j] = v[i * n + order[j]];
  }
  return eigen;
}

PrincipalDirections UncentredPca(const at::Tensor& rows, int64_t rank) {
  const int64_t m = rows.size(0);
  const at::Tensor x = rows.to(at::kDouble).contiguous();
  const at::Tensor gram = at::matmul(x, x.t()).contiguous();  // [M, M]
  const double* g = gram.data_ptr<double>();
  Eigen eigen = m <= kMaxJacobi ? SymmetricEigen({g, g + m * m}, m) : LapackEigen(gram);
  PrincipalDirections result;
  const double sum = std::accumulate(eigen.values.begin(), eigen.values.end(), 0.0);
  if (sum > 0) result.explained_variance = eigen.values[0] / sum;
  const at::Tensor mean = x.mean(0);
  std::vector<at::Tensor> directions;
  for (int64_t j = 0; j < std::min(rank, m); ++j) {
    if (eigen.values[j] <= kRelativeZero * eigen.values[0] || eigen.values[j] <= 0) break;
    at::Tensor u = at::zeros({m}, at::kDouble);
    for (int64_t i = 0; i < m; ++i) u.data_ptr<double>()[i] = eigen.vectors[i * m + j];
    at::Tensor v = at::matmul(x.t(), u);
    v = v / v.norm();
    if (at::matmul(v, mean).item<double>() < 0) v = -v;
    directions.push_back(v);
  }
  result.directions =
      directions.empty() ? at::zeros({0, rows.size(1)}, at::kFloat) : at::stack(directions).to(at::kFloat);
  result.eigenvalues = std::move(eigen.values);
  return result;
}

double Cosine(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  const double norms = x.norm().item<double>() * y.norm().item<double>();
  return norms > 0 ? at::matmul(x, y).item<double>() / norms : 0;
}

double BootstrapStability(const at::Tensor& direction, size_t count, const DirectionOfRows& direction_of, int resamples,
                          uint64_t seed) {
  if (count == 0 || resamples <= 0) return 0;
  double sum = 0;
  for (int r = 0; r < resamples; ++r) {
    Random random(seed, static_cast<uint64_t>(r));
    std::vector<size_t> sample(count);
    for (size_t& row : sample) row = random.Index(count);
    std::sort(sample.begin(), sample.end());
    sum += std::abs(Cosine(direction, direction_of(sample)));
  }
  return sum / resamples;
}

double SplitHalfCosine(size_t count, const DirectionOfRows& direction_of, uint64_t seed) {
  if (count < 2) return 0;
  const std::vector<size_t> order = Random(seed, 0).Permutation(count);
  std::vector<size_t> first(order.begin(), order.begin() + static_cast<ptrdiff_t>(count / 2));
  std::vector<size_t> second(order.begin() + static_cast<ptrdiff_t>(count / 2), order.end());
  return std::abs(Cosine(direction_of(first), direction_of(second)));
}

}  // namespace trimtab
