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

size_t IndexOf(Site site) { return static_cast<size_t>(site) - 1; }

uint8_t Bit(Site site) { return static_cast<uint8_t>(1u << IndexOf(site)); }

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

SteeringTap::SteeringTap(const SteeringBank& bank) : bank_(bank) {
  for (const Site site : {Site::kBlockOutput, Site::kAttentionOutput, Site::kMlpOutput}) {
    edits_[IndexOf(site)].tap = this;
    edits_[IndexOf(site)].site = site;
  }
}

void SteeringTap::Begin(const SteeringRows& rows) {
  rows_ = &rows;
  for (SiteEdit& edit : edits_) {
    edit.first_row = -1;
    edit.active_rows = 0;
    edit.first_row_time = {};
  }
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
      const uint8_t bit = Bit(bank_.rule(entry.slot).site);
      active_[row] |= bit;
      if (seen_[entry.slot]) continue;
      seen_[entry.slot] = 1;
      for (int64_t layer = 0; layer < bank_.num_layers(); ++layer) {
        if (bank_.steers(entry.slot, layer)) active_layers_[layer] |= bit;
      }
    }
    if (!active_[row]) continue;
    for (SiteEdit& edit : edits_) {
      if ((active_[row] & Bit(edit.site)) == 0) continue;
      if (edit.first_row < 0) edit.first_row = row;
      ++edit.active_rows;
    }
  }
}

bool SteeringTap::Wants(Site site, int64_t layer) const {
  return site != Site::kAttentionHeads && layer < static_cast<int64_t>(active_layers_.size()) &&
         (active_layers_[layer] & Bit(site)) != 0;
}

RowEdit* SteeringTap::Rows(Site site, int64_t layer) {
  SiteEdit& edit = edits_[IndexOf(site)];
  edit.layer = layer;
  return &edit;
}

absl::Duration SteeringTap::duration() const {
  absl::Duration sum;
  for (const SiteEdit& edit : edits_) sum += edit.active_rows * absl::FromChrono(edit.first_row_time);
  return sum;
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
  RowEdit* edit = Rows(site, layer);
  ParallelTasks((rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task) {
    const int64_t end = std::min(rows, (task + 1) * kRowsPerTask);
    for (int64_t row = task * kRowsPerTask; row < end; ++row) edit->Edit(row, values + row * size);
  });
  return steered;
}

void SteeringTap::SiteEdit::Edit(int64_t row, float* values) {
  if ((tap->active_[row] & Bit(site)) == 0) return;
  if (row != first_row) return tap->Steer(site, layer, row, values);
  const auto begin = std::chrono::steady_clock::now();
  tap->Steer(site, layer, row, values);
  first_row_time += std::chrono::steady_clock::now() - begin;
}

void SteeringTap::Steer(Site site, int64_t layer, int64_t row, float* hidden) {
  const int64_t size = bank_.hidden_size();
  struct Part {
    float lambda;
    const float* vector;  // [hidden]
    float squares;        // of vector
    bool relative, opposes;
  };
  std::array<Part, kMaxSelections> parts;
  size_t count = 0;
  bool preserve = false;
  for (int j = 0; j < kMaxSelections; ++j) {
    const SteeringRows::Entry& entry = rows_->entries[row * kMaxSelections + j];
    if (entry.slot < 0 || entry.strength == 0 || !bank_.steers(entry.slot, layer)) continue;
    const SteeringBank::Rule rule = bank_.rule(entry.slot);
    if (rule.site != site) continue;
    preserve |= rule.preserves_norm;
    parts[count++] = {entry.strength, bank_.row(entry.slot, layer), bank_.squares(entry.slot, layer), rule.relative,
                      rule.opposes};
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
    Part& part = parts[i];
    if (part.relative) part.lambda *= norm;
    if (!part.opposes || norm == 0 || part.squares == 0) continue;
    const float dot = count == 1 ? products.dot : Multiply(hidden, part.vector, size).dot;
    const float cosine = dot / (norm * std::sqrt(part.squares));
    part.lambda *= 1 + std::max(0.0f, part.lambda > 0 ? -cosine : cosine);
  }
  if (count == 1) {
    edit_squares = parts[0].lambda * parts[0].lambda * parts[0].squares;
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
