#include "server/engine/step_cost.h"

#include <algorithm>

namespace trimtab {
namespace {

constexpr double kWeight = 0.125;  // of the newest step
// The slope is at least this part of a prefilling step's mean cost per row: noise must not make rows look free.
constexpr double kLeastSlope = 0.25;
constexpr int64_t kMostRows = int64_t{1} << 30;

}  // namespace

void StepCost::Average::Add(double step_rows, double step_seconds) {
  if (!known) {
    *this = {.known = true, .rows = step_rows, .seconds = step_seconds};
    return;
  }
  rows += kWeight * (step_rows - rows);
  seconds += kWeight * (step_seconds - seconds);
}

void StepCost::Observe(int64_t decode_rows, int64_t prefill_rows, absl::Duration duration) {
  Average& average = prefill_rows > 0 ? prefilling_ : decoding_;
  average.Add(static_cast<double>(decode_rows + prefill_rows), absl::ToDoubleSeconds(duration));
}

int64_t StepCost::PrefillRows(int64_t decode_rows, absl::Duration limit) const {
  if (!prefilling_.known || prefilling_.seconds <= 0) return 2 * kLeastPrefill;
  const double mean = prefilling_.seconds / prefilling_.rows;
  double slope = mean, base = 0;
  if (decoding_.known && prefilling_.rows > decoding_.rows) {
    slope = (prefilling_.seconds - decoding_.seconds) / (prefilling_.rows - decoding_.rows);
    slope = std::clamp(slope, kLeastSlope * mean, mean);
    base = std::max(0.0, decoding_.seconds - slope * decoding_.rows);
  }
  const double rows = (absl::ToDoubleSeconds(limit) - base) / slope - static_cast<double>(decode_rows);
  return static_cast<int64_t>(std::clamp(rows, static_cast<double>(kLeastPrefill), static_cast<double>(kMostRows)));
}

}  // namespace trimtab
