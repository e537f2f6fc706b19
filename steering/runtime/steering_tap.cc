#include "steering/runtime/steering_tap.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "models/kernels/cpu/simd.h"
#include "models/kernels/thread_team.h"

namespace trimtab {
namespace {

constexpr float kMinNorm = 1e-8f;
constexpr int64_t kPiece = 512;  // elements of the edit that are held at a time
constexpr int64_t kRowsPerTask = 16;

void Scale(float* x, int64_t size, float factor) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) Store8(x + i, Load8(x + i) * factor);
  for (; i < size; ++i) x[i] *= factor;
}

// u += lambda * v.
void AddScaled(float lambda, const float* v, int64_t size, float* u) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) Store8(u + i, Load8(u + i) + lambda * Load8(v + i));
  for (; i < size; ++i) u[i] += lambda * v[i];
}

}  // namespace

SteeringTap::SteeringTap(const SteeringBank& bank, const SteeringRows& rows)
    : bank_(bank), rows_(rows), active_layers_(static_cast<size_t>(bank.num_layers()), 0) {
  const int64_t num_rows = static_cast<int64_t>(rows.entries.size()) / kMaxSelections;
  row_dose_.assign(static_cast<size_t>(num_rows), 0.0f);
  row_nonfinite_.assign(static_cast<size_t>(num_rows), 0);
  active_.assign(static_cast<size_t>(num_rows), 0);
  std::vector<bool> seen(static_cast<size_t>(bank.num_slots()), false);
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int j = 0; j < kMaxSelections; ++j) {
      const SteeringRows::Entry& entry = rows.entries[row * kMaxSelections + j];
      if (entry.slot < 0 || entry.strength == 0) continue;
      active_[row] = 1;
      if (seen[entry.slot]) continue;
      seen[entry.slot] = true;
      for (int64_t layer = 0; layer < bank.num_layers(); ++layer) {
        if (bank.steers(entry.slot, layer)) active_layers_[layer] = 1;
      }
    }
    if (!active_[row]) continue;
    if (first_row_ < 0) first_row_ = row;
    ++active_rows_;
  }
}

bool SteeringTap::Wants(Site site, int64_t layer) const {
  return site == Site::kBlockOutput && layer < static_cast<int64_t>(active_layers_.size()) &&
         active_layers_[layer] != 0;
}

RowEdit* SteeringTap::Rows(int64_t layer) {
  layer_ = layer;
  return this;
}

at::Tensor SteeringTap::At(Site site, int64_t layer, at::Tensor hidden) {
  if (!Wants(site, layer)) return hidden;
  const int64_t rows = hidden.size(0), size = bank_.hidden_size();
  TORCH_CHECK(hidden.dim() == 2 && hidden.size(1) == size && hidden.scalar_type() == at::kFloat &&
                  rows == static_cast<int64_t>(active_.size()),
              "steering rows do not fit the activations");
  at::NoGradGuard no_grad;
  at::Tensor steered = at::empty_like(hidden, at::MemoryFormat::Contiguous);
  steered.copy_(hidden);
  float* values = steered.data_ptr<float>();
  layer_ = layer;
  ParallelTasks((rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task) {
    const int64_t end = std::min(rows, (task + 1) * kRowsPerTask);
    for (int64_t row = task * kRowsPerTask; row < end; ++row) Edit(row, values + row * size);
  });
  return steered;
}

void SteeringTap::Edit(int64_t row, float* hidden) {
  if (!active_[row]) return;
  if (row != first_row_) return Steer(row, hidden);
  const auto begin = std::chrono::steady_clock::now();
  Steer(row, hidden);
  first_row_time_ += std::chrono::steady_clock::now() - begin;
}

void SteeringTap::Steer(int64_t row, float* hidden) {
  const int64_t size = bank_.hidden_size();
  struct Part {
    float lambda;
    const float* vector;  // [hidden]
  };
  std::array<Part, kMaxSelections> parts;
  size_t count = 0;
  bool preserve = false;
  float norm = 0;  // of the row
  for (int j = 0; j < kMaxSelections; ++j) {
    const SteeringRows::Entry& entry = rows_.entries[row * kMaxSelections + j];
    if (entry.slot < 0 || entry.strength == 0 || !bank_.steers(entry.slot, layer_)) continue;
    if (count == 0) norm = std::sqrt(SumOfSquares(hidden, size));
    const SteeringBank::Rule rule = bank_.rule(entry.slot);
    preserve |= rule.preserves_norm;
    parts[count++] = {rule.relative ? entry.strength * norm : entry.strength, bank_.row(entry.slot, layer_)};
  }
  if (count == 0) return;
  // u is needed twice: for its norm, and to be added. It is made a piece at a time, in one order.
  std::array<float, kPiece> u;
  float edit = 0, sum = 0;
  const auto each_piece = [&](const auto& use) {
    for (int64_t first = 0; first < size; first += kPiece) {
      const int64_t length = std::min(kPiece, size - first);
      std::fill_n(u.begin(), length, 0.0f);
      for (size_t i = 0; i < count; ++i) AddScaled(parts[i].lambda, parts[i].vector + first, length, u.data());
      use(first, length);
    }
  };
  each_piece([&](int64_t, int64_t length) { edit += SumOfSquares(u.data(), length); });
  edit = std::sqrt(edit);
  if (!std::isfinite(norm) || !std::isfinite(edit)) {
    row_nonfinite_[row] = 1;
    return;
  }
  if (norm > 0) row_dose_[row] += edit / norm;
  each_piece([&](int64_t first, int64_t length) {
    AddScaled(1, u.data(), length, hidden + first);
    sum += SumOfSquares(hidden + first, length);
  });
  if (preserve) Scale(hidden, size, norm / std::max(std::sqrt(sum), kMinNorm));
}

}  // namespace trimtab
