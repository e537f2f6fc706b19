// What ModelProbe hooks into a forward pass: reading the residual stream, and differentiating with respect to an edit
// of it. One forward pass at a time.
#ifndef TRIMTAB_STEERING_PROBE_TAPS_H_
#define TRIMTAB_STEERING_PROBE_TAPS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/layer_tap.h"

namespace trimtab {

// Keeps the residual stream of some rows after some blocks.
class CaptureTap final : public LayerTap {
 public:
  // rows: [R] int64.
  CaptureTap(std::vector<int64_t> layers, at::Tensor rows);
  at::Tensor At(Site site, int64_t layer, at::Tensor hidden) override;
  bool Wants(Site site, int64_t layer) const override;
  const std::vector<at::Tensor>& states() const { return states_; }  // per layer [R, hidden] float32

 private:
  const std::vector<int64_t> layers_;
  const at::Tensor rows_;
  std::vector<at::Tensor> states_;
};

// Adds |h| v to some rows and restores their norm to first order, with v = 0: values stay as they are, and v collects
// the gradient of steering. Each group of rows (a pair) has its own v at each layer.
class SteeringGradientTap final : public LayerTap {
 public:
  // rows: [R] int64; groups: [R] int64, group of each row.
  SteeringGradientTap(std::vector<int64_t> layers, at::Tensor rows, at::Tensor groups, int64_t num_groups,
                      int64_t hidden_size);
  at::Tensor At(Site site, int64_t layer, at::Tensor hidden) override;
  bool Wants(Site site, int64_t layer) const override;
  const std::vector<at::Tensor>& leaves() const { return leaves_; }  // per layer [num_groups, hidden] float32

 private:
  const std::vector<int64_t> layers_;
  const at::Tensor rows_, groups_;
  std::vector<at::Tensor> leaves_;
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_PROBE_TAPS_H_
