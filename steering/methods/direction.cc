#include "steering/methods/direction.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <numeric>

#include "steering/attribution/pca.h"

namespace trimtab {
namespace {

using methods::v1::GrainsConfig;

constexpr int kResamples = 20;

at::Tensor Unit(const at::Tensor& v) {  // [D] double; zero stays zero
  const double norm = v.norm().item<double>();
  return norm > 0 && std::isfinite(norm) ? v / norm : at::zeros_like(v);
}

at::Tensor FirstDirection(const at::Tensor& rows) {  // [M, D] -> [D] double
  const at::Tensor directions = UncentredPca(rows, 1).directions;
  return directions.size(0) > 0 ? directions[0].to(at::kDouble) : at::zeros({rows.size(1)}, at::kDouble);
}

// The chosen pairs' evidence, in double.
struct Sample {
  at::Tensor rows;                // [M, D] paired deltas times the root of the weight
  at::Tensor roots;               // [M] roots of the weights
  at::Tensor positive, negative;  // the same of each side; only for COMBINE_PAPER
  at::Tensor gradient;            // [D] weighted mean

  at::Tensor Mean() const { return at::matmul(roots, rows) / (roots * roots).sum(); }  // [D] weighted mean delta
};

Sample Select(const LayerEvidence& evidence, const std::vector<size_t>& pairs, bool sides) {
  std::vector<int64_t> all, with_row;
  std::vector<double> weights, roots;
  for (size_t pair : pairs) {
    all.push_back(static_cast<int64_t>(pair));
    weights.push_back(evidence.weights[pair]);
    if (!evidence.has_row[pair]) continue;
    with_row.push_back(static_cast<int64_t>(pair));
    roots.push_back(std::sqrt(evidence.weights[pair]));
  }
  Sample sample;
  const at::Tensor w = at::tensor(weights, at::kDouble);
  sample.gradient = at::matmul(w, evidence.gradients.index_select(0, at::tensor(all)).to(at::kDouble)) / w.sum();
  const at::Tensor rows = at::tensor(with_row, at::kLong);
  sample.roots = at::tensor(roots, at::kDouble);
  const at::Tensor root = sample.roots.unsqueeze(1);
  sample.rows = evidence.paired.index_select(0, rows).to(at::kDouble) * root;
  if (sides) {
    sample.positive = evidence.positive.index_select(0, rows).to(at::kDouble) * root;
    sample.negative = evidence.negative.index_select(0, rows).to(at::kDouble) * root;
  }
  return sample;
}

}  // namespace

at::Tensor DirectionOf(const LayerEvidence& evidence, const std::vector<size_t>& pairs, const GrainsConfig& config) {
  Sample sample = Select(evidence, pairs, config.combine() == GrainsConfig::COMBINE_PAPER);
  const at::Tensor gradient = Unit(sample.gradient);
  if (sample.rows.size(0) == 0) return at::zeros_like(gradient).to(at::kFloat);
  if (config.orientation() == GrainsConfig::ORIENTATION_PER_ROW_MARGIN_GRADIENT) {
    const at::Tensor dots = at::matmul(sample.rows, gradient);  // [M]
    sample.rows = sample.rows * at::where(dots < 0, -1.0, 1.0).to(at::kDouble).unsqueeze(1);
  }
  at::Tensor direction;
  switch (config.combine()) {
    case GrainsConfig::COMBINE_PAPER:
      direction = FirstDirection(sample.positive) - FirstDirection(sample.negative);
      break;
    case GrainsConfig::COMBINE_MEAN:
      direction = sample.Mean();
      break;
    case GrainsConfig::COMBINE_SUBSPACE_GRADIENT: {
      const at::Tensor basis = UncentredPca(sample.rows, config.rank()).directions.to(at::kDouble);  // [rank, D]
      direction = at::matmul(at::matmul(basis, gradient), basis);
      break;
    }
    default:
      direction = FirstDirection(sample.rows);
  }
  direction = Unit(direction);
  const at::Tensor reference = config.orientation() == GrainsConfig::ORIENTATION_MEAN_DELTA ? sample.Mean() : gradient;
  if (at::matmul(direction, reference).item<double>() < 0) direction = -direction;
  if (const double share = config.gradient_share(); share > 0) {
    direction = Unit((1 - share) * direction + share * gradient);
  }
  return direction.to(at::kFloat);
}

LayerDirection FitLayer(const LayerEvidence& evidence, const GrainsConfig& config) {
  std::vector<size_t> all(evidence.weights.size());
  std::iota(all.begin(), all.end(), 0);
  const at::Tensor direction = DirectionOf(evidence, all, config).contiguous();
  const Sample sample = Select(evidence, all, /*sides=*/false);
  LayerDirection result{.layer = evidence.layer};
  const float* values = direction.data_ptr<float>();
  result.direction.assign(values, values + direction.numel());
  result.cosine_to_margin_gradient = static_cast<float>(Cosine(direction, sample.gradient));
  if (sample.rows.size(0) > 0) {
    result.explained_variance = static_cast<float>(UncentredPca(sample.rows, 1).explained_variance);
    result.cosine_to_mean = static_cast<float>(Cosine(direction, sample.Mean()));
  }
  return result;
}

float StabilityOf(const LayerEvidence& evidence, const LayerDirection& direction, const GrainsConfig& config) {
  const at::Tensor fitted = at::tensor(direction.direction);
  return static_cast<float>(BootstrapStability(
      fitted, evidence.weights.size(),
      [&](const std::vector<size_t>& pairs) { return DirectionOf(evidence, pairs, config); }, kResamples,
      config.fit().seed()));
}

double Agreement(const LayerEvidence& evidence) {
  std::vector<size_t> all(evidence.weights.size());
  std::iota(all.begin(), all.end(), 0);
  const Sample sample = Select(evidence, all, /*sides=*/false);
  if (sample.rows.size(0) == 0) return 1;
  const at::Tensor agrees = at::matmul(sample.rows, sample.gradient) > 0;
  return agrees.sum().item<double>() / static_cast<double>(sample.rows.size(0));
}

}  // namespace trimtab
