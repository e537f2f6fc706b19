#include "steering/runtime/steering_bank.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "models/kernels/cpu/simd.h"

namespace trimtab {

SteeringBank::SteeringBank(int64_t num_slots, int64_t num_layers, int64_t hidden_size)
    : table_(at::empty({num_slots, num_layers, hidden_size}, at::kFloat)), slots_(static_cast<size_t>(num_slots)) {
  for (int32_t slot = 0; slot < num_slots; ++slot) {
    slots_[slot].squares.assign(static_cast<size_t>(num_layers), -1);
    slots_[slot].idle = idle_.insert(idle_.end(), slot);
  }
}

std::optional<int32_t> SteeringBank::Acquire(const std::shared_ptr<const SteeringVector>& vector) {
  if (const auto it = by_digest_.find(vector->digest()); it != by_digest_.end()) {
    Slot& slot = slots_[it->second];
    if (slot.references++ == 0) idle_.erase(slot.idle);
    ++counters_.hits;
    return it->second;
  }
  const SteeringVectorSpec& spec = vector->spec();
  TORCH_CHECK(spec.hidden_size == hidden_size() && spec.layers.back().layer < num_layers(),
              "the steering vector does not fit the model");
  if (idle_.empty()) return std::nullopt;
  const int32_t index = idle_.front();
  idle_.pop_front();
  Slot& slot = slots_[index];
  if (slot.vector != nullptr) {
    by_digest_.erase(slot.vector->digest());
    ++counters_.evictions;
  }
  float* row = table_.data_ptr<float>() + index * num_layers() * hidden_size();
  std::fill(row, row + num_layers() * hidden_size(), 0.0f);
  std::fill(slot.squares.begin(), slot.squares.end(), -1.0f);
  for (const LayerDirection& layer : spec.layers) {
    float* scaled = row + layer.layer * hidden_size();
    std::transform(layer.direction.begin(), layer.direction.end(), scaled, [&](float x) { return x * layer.weight; });
    slot.squares[static_cast<size_t>(layer.layer)] = SumOfSquares(scaled, hidden_size());
  }
  slot.rule = {.site = spec.site,
               .relative = spec.strength_mode == StrengthMode::kRelative,
               .preserves_norm = spec.operation != Operation::kAdd,
               .opposes = spec.operation == Operation::kAddOpposingPreserveNorm};
  slot.vector = vector;
  slot.references = 1;
  by_digest_[vector->digest()] = index;
  ++counters_.misses;
  counters_.uploaded_bytes += num_layers() * hidden_size() * static_cast<int64_t>(sizeof(float));
  return index;
}

void SteeringBank::Release(int32_t slot) {
  TORCH_CHECK(slot >= 0 && slot < num_slots() && slots_[slot].references > 0, "release of a slot that is not held");
  if (--slots_[slot].references == 0) slots_[slot].idle = idle_.insert(idle_.end(), slot);
}

int64_t SteeringBank::bytes() const { return table_.numel() * static_cast<int64_t>(sizeof(float)); }

}  // namespace trimtab
