// Applies steering vectors in a forward pass: sums a token's vectors, adds once, restores the token's norm once
// (steering.md A7). One forward pass at a time.
#ifndef TRIMTAB_STEERING_RUNTIME_STEERING_TAP_H_
#define TRIMTAB_STEERING_RUNTIME_STEERING_TAP_H_

#include <ATen/core/Tensor.h>

#include <array>
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

// At each site h' = (h + u) * |h| / |h + u| with u = sum of lambda_j v_j over the row's vectors of that site, lambda =
// strength * |h| (relative) or strength (absolute), times 1 + max(0, cos(h, -lambda v)) for vectors that oppose;
// without the rescale when every one of them says Operation::kAdd. h is the activation at the site: the residual
// stream, or what attention or the MLP is about to add to it. Computed in float32 whatever the activations' type.
// `bank` and the rows must stay as they are while the tap is in use. Serving and scoring only: the result carries no
// gradient.
class SteeringTap final : public LayerTap {
 public:
  // Begin comes first.
  explicit SteeringTap(const SteeringBank& bank);
  SteeringTap(const SteeringBank& bank, const SteeringRows& rows) : SteeringTap(bank) { Begin(rows); }
  SteeringTap(const SteeringTap&) = delete;  // its edits point to it
  SteeringTap& operator=(const SteeringTap&) = delete;

  // Starts a forward pass of these rows. Keeps its memory: as many rows as before allocate nothing.
  void Begin(const SteeringRows& rows);

  at::Tensor At(Site site, int64_t layer, at::Tensor hidden) override;
  bool Wants(Site site, int64_t layer) const override;
  RowEdit* Rows(Site site, int64_t layer) override;
  // Per row: the sum over the steered sites and layers of |u| / |h|, h being the site's own activation: an edit of an
  // MLP's output counts by what it is to that output, not to the residual stream. For AppliedSteering.
  const std::vector<float>& row_dose() const { return row_dose_; }
  // Per row: not 0 when h or u held a NaN or an infinity at some layer.
  const std::vector<uint8_t>& row_nonfinite() const { return row_nonfinite_; }
  // Processor time that the edits took, as the first steered row's time at each site and layer tells.
  absl::Duration duration() const;

 private:
  static constexpr size_t kSites = 3;  // of vectors

  // The edit at one site; an entry of a row is active there when its vector is of the site and its strength not 0.
  class SiteEdit final : public RowEdit {
   public:
    void Edit(int64_t row, float* values) override;

    SteeringTap* tap = nullptr;
    Site site = Site::kBlockOutput;
    int64_t layer = 0;        // that is being steered
    int64_t first_row = -1;   // with an active entry
    int64_t active_rows = 0;  // how many have one
    std::chrono::steady_clock::duration first_row_time{0};
  };

  void Steer(Site site, int64_t layer, int64_t row, float* hidden);

  const SteeringBank& bank_;
  const SteeringRows* rows_ = nullptr;
  std::array<SiteEdit, kSites> edits_;
  std::vector<uint8_t> active_;         // [rows]: the sites at which it has an active entry, as bits
  std::vector<uint8_t> active_layers_;  // [layers]: the sites at which some active entry's vector steers, as bits
  std::vector<uint8_t> seen_;           // [slots], scratch
  std::vector<float> row_dose_;
  std::vector<uint8_t> row_nonfinite_;
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_RUNTIME_STEERING_TAP_H_
