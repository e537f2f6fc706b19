#include "server/jobs/progress_tracker.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace trimtab {
namespace {

constexpr size_t kMaxPartialFailures = 20;
constexpr double kLeastSeen = 0.01;  // of the work, before the pace means something

}  // namespace

void ProgressTracker::Start(absl::Time now) {
  *this = ProgressTracker();
  start_ = now;
}

bool ProgressTracker::Update(const JobProgress& report, absl::Time now) {
  const JobProgress before = progress_;
  progress_ = report;
  const double fraction = std::isfinite(report.fraction) ? std::clamp(report.fraction, 0.0, 1.0) : 0.0;
  progress_.fraction = std::max(before.fraction, fraction);
  while (progress_.partial_failures.size() > kMaxPartialFailures) {
    progress_.partial_failures.erase(std::prev(progress_.partial_failures.end()));
  }
  if (first_report_ == absl::InfinitePast()) {
    first_report_ = now;
    first_fraction_ = progress_.fraction;
  }
  return progress_.phase != before.phase;
}

absl::Duration ProgressTracker::Eta(absl::Time now) const {
  if (progress_.fraction >= 1) return absl::ZeroDuration();
  const double seen = progress_.fraction - first_fraction_;
  if (seen < kLeastSeen) return absl::InfiniteDuration();
  return (now - first_report_) * ((1 - progress_.fraction) / seen);
}

}  // namespace trimtab
