// What ModelProbe hooks into a forward pass: reading activations, and differentiating with respect to an edit of them.
// One forward pass at a time.
#ifndef TRIMTAB_STEERING_PROBE_TAPS_H_
#define TRIMTAB_STEERING_PROBE_TAPS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/layer_tap.h"

namespace trimtab {

// Keeps the activations of some rows at one site of some blocks.
class CaptureTap final : public LayerTap {
 public:
  // rows: [R] int64.
  CaptureTap(std::vector<int64_t> layers, at::Tensor rows, Site site = Site::kBlockOutput);
  at::Tensor At(Site site, int64_t layer, at::Tensor hidden) override;
  bool Wants(Site site, int64_t layer) const override;
  const std::vector<at::Tensor>& states() const { return states_; }  // per layer [R, width] float32

 private:
  const Site site_;
  const std::vector<int64_t> layers_;
  const at::Tensor rows_;
  std::vector<at::Tensor> states_;
};

// Adds |h| v to some rows of one site and restores their norm to first order, with v = 0: values stay as they are, and
// v collects the gradient of steering. Each group of rows (a pair) has its own v at each layer.
class SteeringGradientTap final : public LayerTap {
 public:
  // rows: [R] int64; groups: [R] int64, group of each row.
  SteeringGradientTap(std::vector<int64_t> layers, at::Tensor rows, at::Tensor groups, int64_t num_groups,
                      int64_t hidden_size, Site site = Site::kBlockOutput);
  at::Tensor At(Site site, int64_t layer, at::Tensor hidden) override;
  bool Wants(Site site, int64_t layer) const override;
  const std::vector<at::Tensor>& leaves() const { return leaves_; }  // per layer [num_groups, hidden] float32

 private:
  const Site site_;
  const std::vector<int64_t> layers_;
  const at::Tensor rows_, groups_;
  std::vector<at::Tensor> leaves_;
};

// Differentiates what attention adds with respect to its heads, each layer by itself: values stay as they are.
class HeadGradientTap final : public LayerTap {
 public:
  // rows: [R] int64.
  HeadGradientTap(std::vector<int64_t> layers, at::Tensor rows);
  at::Tensor At(Site site, int64_t layer, at::Tensor hidden) override;
  bool Wants(Site site, int64_t layer) const override;
  const std::vector<at::Tensor>& leaves() const { return leaves_; }    // per layer [R, heads * head_dim], zeros
  const std::vector<at::Tensor>& outputs() const { return outputs_; }  // per layer [R, hidden], functions of the leaves

 private:
  const std::vector<int64_t> layers_;
  const at::Tensor rows_;
  std::vector<at::Tensor> leaves_, outputs_;
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_PROBE_TAPS_H_
