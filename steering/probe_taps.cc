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
int64_t IndexOf(const std::vector<int64_t>& layers, int64_t layer) {
  const auto it = std::find(layers.begin(), layers.end(), layer);
  return it == layers.end() ? -1 : it - layers.begin();
}

}  // namespace

CaptureTap::CaptureTap(std::vector<int64_t> layers, at::Tensor rows, Site site)
    : site_(site), layers_(std::move(layers)), rows_(std::move(rows)), states_(layers_.size()) {}

at::Tensor CaptureTap::At(Site site, int64_t layer, at::Tensor hidden) {
  if (Wants(site, layer)) {
    states_[static_cast<size_t>(IndexOf(layers_, layer))] = hidden.index_select(0, rows_).to(at::kFloat);
  }
  return hidden;
}

bool CaptureTap::Wants(Site site, int64_t layer) const { return site == site_ && IndexOf(layers_, layer) >= 0; }

SteeringGradientTap::SteeringGradientTap(std::vector<int64_t> layers, at::Tensor rows, at::Tensor groups,
                                         int64_t num_groups, int64_t hidden_size, Site site)
    : site_(site), layers_(std::move(layers)), rows_(std::move(rows)), groups_(std::move(groups)) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    leaves_.push_back(at::zeros({num_groups, hidden_size}, at::kFloat).requires_grad_(true));
  }
}

at::Tensor SteeringGradientTap::At(Site site, int64_t layer, at::Tensor hidden) {
  if (!Wants(site, layer)) return hidden;
  const auto i = static_cast<size_t>(IndexOf(layers_, layer));
  const at::Tensor h = hidden.detach().index_select(0, rows_).to(at::kFloat);  // [R, hidden]
  const at::Tensor norm = at::linalg_vector_norm(h, 2, {-1}, /*keepdim=*/true).clamp_min(kMinNorm);
  const at::Tensor unit = h / norm;
  const at::Tensor edit = norm * leaves_[i].index_select(0, groups_);
  const at::Tensor tangent = edit - unit * (unit * edit).sum(-1, /*keepdim=*/true);
  return hidden.index_add(0, rows_, tangent.to(hidden.scalar_type()));
}

bool SteeringGradientTap::Wants(Site site, int64_t layer) const {
  return site == site_ && IndexOf(layers_, layer) >= 0;
}

HeadGradientTap::HeadGradientTap(std::vector<int64_t> layers, at::Tensor rows)
    : layers_(std::move(layers)), rows_(std::move(rows)), leaves_(layers_.size()), outputs_(layers_.size()) {}

at::Tensor HeadGradientTap::At(Site site, int64_t layer, at::Tensor hidden) {
  if (!Wants(site, layer)) return hidden;
  const auto i = static_cast<size_t>(IndexOf(layers_, layer));
  if (site == Site::kAttentionHeads) {
    leaves_[i] = at::zeros({rows_.size(0), hidden.size(1)}, at::kFloat).requires_grad_(true);
    return hidden.index_add(0, rows_, leaves_[i]);
  }
  outputs_[i] = hidden.index_select(0, rows_);
  return hidden.detach();
}

bool HeadGradientTap::Wants(Site site, int64_t layer) const {
  return (site == Site::kAttentionHeads || site == Site::kAttentionOutput) && IndexOf(layers_, layer) >= 0;
}

}  // namespace trimtab
