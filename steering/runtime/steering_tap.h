// Applies steering vectors in a forward pass: sums a token's vectors, adds once, restores the token's norm once
// (steering.md A7). One forward pass at a time.
#ifndef TRIMTAB_STEERING_RUNTIME_STEERING_TAP_H_
#define TRIMTAB_STEERING_RUNTIME_STEERING_TAP_H_

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "models/layer_tap.h"
#include "steering/runtime/steering_bank.h"
#include "steering/steering_plan.h"

namespace trimtab {

// What to apply to each row of a step; filled once per step for all layers.
struct SteeringRows {
  struct Entry {
    int32_t slot = -1;   // in the bank; -1: none
    float strength = 0;  // per row; 0 leaves the row untouched, bit for bit
  };
  // [num_tokens][kMaxSelections], row-major; empty when no row is steered.
  std::vector<Entry> entries;
  bool empty() const { return entries.empty(); }
};

// h' = (h + u) * |h| / |h + u| with u = sum of lambda_j v_j, lambda = strength * |h| (relative) or strength (absolute);
// without the rescale when every vector of the row says Operation::kAdd. Computed in float32 whatever the activations'
// type. `bank` and the rows must stay as they are while the tap is in use. Serving and scoring only: the result carries
// no gradient.
class SteeringTap final : public LayerTap, private RowEdit {
 public:
  // Begin comes first.
  explicit SteeringTap(const SteeringBank& bank);
  SteeringTap(const SteeringBank& bank, const SteeringRows& rows) : SteeringTap(bank) { Begin(rows); }

  // Starts a forward pass of these rows. Keeps its memory: as many rows as before allocate nothing.
  void Begin(const SteeringRows& rows);

  at::Tensor At(Site site, int64_t layer, at::Tensor hidden) override;
  bool Wants(Site site, int64_t layer) const override;
  RowEdit* Rows(int64_t layer) override;
  // Per row: the sum over the steered layers of |u| / |h|. For AppliedSteering.
  const std::vector<float>& row_dose() const { return row_dose_; }
  // Per row: not 0 when h or u held a NaN or an infinity at some layer.
  const std::vector<uint8_t>& row_nonfinite() const { return row_nonfinite_; }
  // Processor time that the edits took, as the first steered row's time at each layer tells.
  absl::Duration duration() const { return active_rows_ * absl::FromChrono(first_row_time_); }

 private:
  void Edit(int64_t row, float* hidden) override;
  void Steer(int64_t row, float* hidden);

  const SteeringBank& bank_;
  const SteeringRows* rows_ = nullptr;
  int64_t layer_ = 0;                   // that is being steered
  int64_t first_row_ = -1;              // with an entry of a strength other than 0
  int64_t active_rows_ = 0;             // how many have one
  std::vector<uint8_t> active_;         // [rows]: whether it has one
  std::vector<uint8_t> active_layers_;  // [layers]: some active entry's vector steers there
  std::vector<uint8_t> seen_;           // [slots], scratch
  std::vector<float> row_dose_;
  std::vector<uint8_t> row_nonfinite_;
  std::chrono::steady_clock::duration first_row_time_{0};
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_RUNTIME_STEERING_TAP_H_
