#include "steering/probe_taps.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

namespace trimtab {
namespace {

constexpr double kMinNorm = 1e-8;

// Index of `layer` in `layers`, or -1.
int64_t IndexOf(const std::vector<int64_t>& layers, Site site, int64_t layer) {
  if (site != Site::kBlockOutput) return -1;
  const auto it = std::find(layers.begin(), layers.end(), layer);
  return it == layers.end() ? -1 : it - layers.begin();
}

}  // namespace

CaptureTap::CaptureTap(std::vector<int64_t> layers, at::Tensor rows)
    : layers_(std::move(layers)), rows_(std::move(rows)), states_(layers_.size()) {}

at::Tensor CaptureTap::At(Site site, int64_t layer, at::Tensor hidden) {
  if (const int64_t i = IndexOf(layers_, site, layer); i >= 0) {
    states_[i] = hidden.index_select(0, rows_).to(at::kFloat);
  }
  return hidden;
}

bool CaptureTap::Wants(Site site, int64_t layer) const { return IndexOf(layers_, site, layer) >= 0; }

SteeringGradientTap::SteeringGradientTap(std::vector<int64_t> layers, at::Tensor rows, at::Tensor groups,
                                         int64_t num_groups, int64_t hidden_size)
    : layers_(std::move(layers)), rows_(std::move(rows)), groups_(std::move(groups)) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    leaves_.push_back(at::zeros({num_groups, hidden_size}, at::kFloat).requires_grad_(true));
  }
}

at::Tensor SteeringGradientTap::At(Site site, int64_t layer, at::Tensor hidden) {
  const int64_t i = IndexOf(layers_, site, layer);
  if (i < 0) return hidden;
  const at::Tensor h = hidden.detach().index_select(0, rows_).to(at::kFloat);  // [R, hidden]
  const at::Tensor norm = at::linalg_vector_norm(h, 2, {-1}, /*keepdim=*/true).clamp_min(kMinNorm);
  const at::Tensor unit = h / norm;
  const at::Tensor edit = norm * leaves_[i].index_select(0, groups_);
  const at::Tensor tangent = edit - unit * (unit * edit).sum(-1, /*keepdim=*/true);
  return hidden.index_add(0, rows_, tangent.to(hidden.scalar_type()));
}

bool SteeringGradientTap::Wants(Site site, int64_t layer) const { return IndexOf(layers_, site, layer) >= 0; }

}  // namespace trimtab
