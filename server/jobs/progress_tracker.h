// The progress of one run of a job: keeps it monotonic and estimates the rest. Used by the job manager under its mutex.
#ifndef TRIMTAB_SERVER_JOBS_PROGRESS_TRACKER_H_
#define TRIMTAB_SERVER_JOBS_PROGRESS_TRACKER_H_

#include "absl/time/time.h"
#include "server/base/job_context.h"

namespace trimtab {

// Not thread-safe.
class ProgressTracker {
 public:
  // A run starts at `now`. What an earlier run of the job reported is forgotten.
  void Start(absl::Time now);
  // Takes a report: the fraction never falls and stays in [0, 1], at most 20 partial failures are kept. Returns whether
  // the job entered another phase.
  bool Update(const JobProgress& report, absl::Time now);

  const JobProgress& progress() const { return progress_; }
  absl::Duration Elapsed(absl::Time now) const { return now - start_; }
  // Time until the end at the pace since the run's first report (an earlier run's share of the work was there at once);
  // infinite until a hundredth of the work was seen.
  absl::Duration Eta(absl::Time now) const;

 private:
  JobProgress progress_;
  absl::Time start_, first_report_ = absl::InfinitePast();
  double first_fraction_ = 0;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_JOBS_PROGRESS_TRACKER_H_
