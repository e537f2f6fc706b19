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
// An edit that leaves less than this part of |h|^2 + |u|^2 cancels so much of the row that the formula would be
// inexact.
constexpr double kCancels = 1.0 / 16;
constexpr int64_t kRowsPerTask = 16;

// u += lambda * v.
void AddScaled(float lambda, const float* v, int64_t size, float* u) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) Store8(u + i, Load8(u + i) + lambda * Load8(v + i));
  for (; i < size; ++i) u[i] += lambda * v[i];
}

// x = (x + lambda * v) * scale.
void AddThenScale(float lambda, const float* v, int64_t size, float scale, float* x) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) Store8(x + i, (Load8(x + i) + lambda * Load8(v + i)) * scale);
  for (; i < size; ++i) x[i] = (x[i] + lambda * v[i]) * scale;
}

struct Products {
  float squares, dot;
};

// Of x with itself and with v.
Products Multiply(const float* x, const float* v, int64_t size) {
  Float8 squares{}, more_squares{}, dot{}, more_dot{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= size; i += 2 * kLanes) {
    const Float8 first = Load8(x + i), second = Load8(x + i + kLanes);
    squares += first * first;
    more_squares += second * second;
    dot += first * Load8(v + i);
    more_dot += second * Load8(v + i + kLanes);
  }
  Products products{.squares = Sum8(squares + more_squares), .dot = Sum8(dot + more_dot)};
  for (; i < size; ++i) {
    products.squares += x[i] * x[i];
    products.dot += x[i] * v[i];
  }
  return products;
}

// Of x + lambda * v.
float SumOfSquares(const float* x, float lambda, const float* v, int64_t size) {
  float sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += (x[i] + lambda * v[i]) * (x[i] + lambda * v[i]);
  return sum;
}

}  // namespace

SteeringTap::SteeringTap(const SteeringBank& bank) : bank_(bank) {}

void SteeringTap::Begin(const SteeringRows& rows) {
  rows_ = &rows;
  layer_ = 0;
  first_row_ = -1;
  active_rows_ = 0;
  first_row_time_ = {};
  const auto num_rows = static_cast<int64_t>(rows.entries.size()) / kMaxSelections;
  active_layers_.assign(static_cast<size_t>(bank_.num_layers()), 0);
  row_dose_.assign(static_cast<size_t>(num_rows), 0.0f);
  row_nonfinite_.assign(static_cast<size_t>(num_rows), 0);
  active_.assign(static_cast<size_t>(num_rows), 0);
  seen_.assign(static_cast<size_t>(bank_.num_slots()), 0);
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int j = 0; j < kMaxSelections; ++j) {
      const SteeringRows::Entry& entry = rows.entries[row * kMaxSelections + j];
      if (entry.slot < 0 || entry.strength == 0) continue;
      active_[row] = 1;
      if (seen_[entry.slot]) continue;
      seen_[entry.slot] = 1;
      for (int64_t layer = 0; layer < bank_.num_layers(); ++layer) {
        if (bank_.steers(entry.slot, layer)) active_layers_[layer] = 1;
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
  std::array<bool, kMaxSelections> relative;
  float vector_squares = 0;  // of the last part's vector
  for (int j = 0; j < kMaxSelections; ++j) {
    const SteeringRows::Entry& entry = rows_->entries[row * kMaxSelections + j];
    if (entry.slot < 0 || entry.strength == 0 || !bank_.steers(entry.slot, layer_)) continue;
    const SteeringBank::Rule rule = bank_.rule(entry.slot);
    preserve |= rule.preserves_norm;
    relative[count] = rule.relative;
    vector_squares = bank_.squares(entry.slot, layer_);
    parts[count++] = {entry.strength, bank_.row(entry.slot, layer_)};
  }
  if (count == 0) return;
  // What the row's norm after the edit follows from: h.h, h.u and u.u, without making h + u first.
  Products products;
  float edit_squares = 0;
  std::array<float, kPiece> sum_of_parts;
  // use(first, length, lambda, v) with u = lambda * v, in pieces when it is a sum that must be made.
  const auto each_piece = [&](const auto& use) {
    if (count == 1) return use(0, size, parts[0].lambda, parts[0].vector);
    for (int64_t first = 0; first < size; first += kPiece) {
      const int64_t length = std::min(kPiece, size - first);
      std::fill_n(sum_of_parts.begin(), length, 0.0f);
      for (size_t i = 0; i < count; ++i) {
        AddScaled(parts[i].lambda, parts[i].vector + first, length, sum_of_parts.data());
      }
      use(first, length, 1.0f, sum_of_parts.data());
    }
  };
  if (count == 1) {
    products = Multiply(hidden, parts[0].vector, size);
  } else {
    products = {.squares = SumOfSquares(hidden, size), .dot = 0};
  }
  const float norm = std::sqrt(products.squares);
  for (size_t i = 0; i < count; ++i) {
    if (relative[i]) parts[i].lambda *= norm;
  }
  if (count == 1) {
    edit_squares = parts[0].lambda * parts[0].lambda * vector_squares;
    products.dot *= parts[0].lambda;
  } else {
    each_piece([&](int64_t first, int64_t length, float, const float* u) {
      const Products piece = Multiply(u, hidden + first, length);
      edit_squares += piece.squares;
      products.dot += piece.dot;
    });
  }
  const float edit = std::sqrt(edit_squares);
  if (!std::isfinite(norm) || !std::isfinite(edit)) {
    row_nonfinite_[row] = 1;
    return;
  }
  if (norm > 0) row_dose_[row] += edit / norm;
  float scale = 1;
  if (preserve) {
    const double all = static_cast<double>(products.squares) + edit_squares;
    double squares = all + 2.0 * products.dot;
    if (squares < kCancels * all) {
      squares = 0;
      each_piece([&](int64_t first, int64_t length, float lambda, const float* v) {
        squares += SumOfSquares(hidden + first, lambda, v, length);
      });
    }
    scale = norm / std::max(static_cast<float>(std::sqrt(squares)), kMinNorm);
  }
  each_piece([&](int64_t first, int64_t length, float lambda, const float* v) {
    AddThenScale(lambda, v, length, scale, hidden + first);
  });
}

}  // namespace trimtab
