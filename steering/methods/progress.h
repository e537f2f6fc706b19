// Progress of a fit by estimated work. One job's thread.
#ifndef TRIMTAB_STEERING_METHODS_PROGRESS_H_
#define TRIMTAB_STEERING_METHODS_PROGRESS_H_

#include <algorithm>
#include <cstdint>
#include <string>

#include "server/base/job_context.h"

namespace trimtab {

// Reports a fraction that never falls: work is counted in rows of forward passes, out of an estimate made up front.
class ProgressMeter {
 public:
  static constexpr size_t kMaxFailures = 20;

  ProgressMeter(JobContext& job, int64_t pairs) : job_(job) { progress_.total = pairs; }

  void set_total_cost(double cost) { total_cost_ = std::max(cost, 1.0); }
  // Phases never go back: of several methods in one job, the later ones start where the earlier ones have got to.
  void Start(JobPhase phase) {
    progress_.phase = std::max(progress_.phase, phase);
    job_.Report(progress_);
  }
  void Add(double cost, int64_t completed_pairs = 0) {
    done_cost_ += cost;
    progress_.completed = std::min(progress_.completed + completed_pairs, progress_.total);
    progress_.fraction = std::max(progress_.fraction, std::min(done_cost_ / total_cost_, 1.0));
    job_.Report(progress_);
  }
  void CompletePairs() { Add(0, progress_.total); }
  void Fail(const std::string& item, const std::string& reason) {
    if (progress_.partial_failures.size() < kMaxFailures) progress_.partial_failures[item] = reason;
  }

 private:
  JobContext& job_;
  JobProgress progress_;
  double total_cost_ = 1, done_cost_ = 0;
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_PROGRESS_H_
