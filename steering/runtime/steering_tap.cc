#include "steering/runtime/steering_tap.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

namespace trimtab {
namespace {

constexpr float kMinNorm = 1e-8f;
constexpr int64_t kRowsPerThread = 64;
constexpr int64_t kLanes = 8;

// Norm with eight partial sums, so that it vectorises; the same order for a row wherever it stands.
float Norm(const float* x, int64_t size) {
  std::array<float, kLanes> lanes{};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane] * x[i + lane];
  }
  float sum = 0;
  for (; i < size; ++i) sum += x[i] * x[i];
  for (float lane : lanes) sum += lane;
  return std::sqrt(sum);
}

}  // namespace

SteeringTap::SteeringTap(const SteeringBank& bank, const SteeringRows& rows)
    : bank_(bank), rows_(rows), active_layers_(static_cast<size_t>(bank.num_layers()), false) {
  const int64_t num_rows = static_cast<int64_t>(rows.entries.size()) / kMaxSelections;
  row_dose_.assign(static_cast<size_t>(num_rows), 0.0f);
  row_nonfinite_.assign(static_cast<size_t>(num_rows), false);
  std::vector<bool> seen(static_cast<size_t>(bank.num_slots()), false);
  for (int64_t row = 0; row < num_rows; ++row) {
    bool active = false;
    for (int j = 0; j < kMaxSelections; ++j) {
      const SteeringRows::Entry& entry = rows.entries[row * kMaxSelections + j];
      if (entry.slot < 0 || entry.strength == 0) continue;
      active = true;
      if (seen[entry.slot]) continue;
      seen[entry.slot] = true;
      for (int64_t layer = 0; layer < bank.num_layers(); ++layer) {
        if (bank.steers(entry.slot, layer)) active_layers_[layer] = true;
      }
    }
    if (active) active_rows_.push_back(row);
  }
}

bool SteeringTap::Wants(Site site, int64_t layer) const {
  return site == Site::kBlockOutput && layer < static_cast<int64_t>(active_layers_.size()) && active_layers_[layer];
}

at::Tensor SteeringTap::At(Site site, int64_t layer, at::Tensor hidden) {
  if (!Wants(site, layer)) return hidden;
  TORCH_CHECK(hidden.dim() == 2 && hidden.size(1) == bank_.hidden_size() &&
                  hidden.size(0) * kMaxSelections == static_cast<int64_t>(rows_.entries.size()),
              "steering rows do not fit the activations");
  at::NoGradGuard no_grad;
  at::Tensor steered = at::empty_like(hidden, at::MemoryFormat::Contiguous);
  steered.copy_(hidden);
  if (steered.scalar_type() == at::kBFloat16) {
    Steer(layer, steered.data_ptr<c10::BFloat16>());
  } else {
    Steer(layer, steered.data_ptr<float>());
  }
  return steered;
}

template <typename Scalar>
void SteeringTap::Steer(int64_t layer, Scalar* hidden) {
  const int64_t size = bank_.hidden_size();
  const float* table = bank_.table().data_ptr<float>();
  const int64_t num_active = static_cast<int64_t>(active_rows_.size());
  std::vector<uint8_t> nonfinite(static_cast<size_t>(num_active), 0);  // bytes: threads write neighbours
  at::parallel_for(0, num_active, kRowsPerThread, [&](int64_t begin, int64_t end) {
    std::vector<float> h(static_cast<size_t>(size)), u(static_cast<size_t>(size));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = active_rows_[i];
      const SteeringRows::Entry* entries = &rows_.entries[row * kMaxSelections];
      Scalar* out = hidden + row * size;
      float norm = -1;  // of the row; computed when the first entry needs it
      bool preserve = false;
      for (int j = 0; j < kMaxSelections; ++j) {
        const SteeringRows::Entry& entry = entries[j];
        if (entry.slot < 0 || entry.strength == 0 || !bank_.steers(entry.slot, layer)) continue;
        if (norm < 0) {
          std::transform(out, out + size, h.begin(), [](Scalar x) { return static_cast<float>(x); });
          norm = Norm(h.data(), size);
          std::fill(u.begin(), u.end(), 0.0f);
          if (!std::isfinite(norm)) break;
        }
        const SteeringVectorSpec& spec = bank_.vector(entry.slot).spec();
        preserve |= spec.operation == Operation::kAddPreserveNorm;
        const float lambda = spec.strength_mode == StrengthMode::kRelative ? entry.strength * norm : entry.strength;
        const float* v = table + (entry.slot * bank_.num_layers() + layer) * size;
        for (int64_t d = 0; d < size; ++d) u[d] += lambda * v[d];
      }
      if (norm < 0) continue;
      const float edit = Norm(u.data(), size);
      if (!std::isfinite(norm) || !std::isfinite(edit)) {
        nonfinite[i] = 1;
        continue;
      }
      if (norm > 0) row_dose_[row] += edit / norm;
      for (int64_t d = 0; d < size; ++d) h[d] += u[d];
      const float scale = preserve ? norm / std::max(Norm(h.data(), size), kMinNorm) : 1.0f;
      std::transform(h.begin(), h.end(), out, [scale](float x) { return static_cast<Scalar>(x * scale); });
    }
  });
  for (int64_t i = 0; i < num_active; ++i) {
    if (nonfinite[i]) row_nonfinite_[active_rows_[i]] = true;
  }
}

}  // namespace trimtab
