// One part of a job as a job of its own. Worker threads.
#ifndef TRIMTAB_SERVER_PART_OF_JOB_H_
#define TRIMTAB_SERVER_PART_OF_JOB_H_

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "server/base/job_context.h"

namespace trimtab {

// Maps reported fractions into [begin, end] of the whole job, keeps partial results apart by a prefix and remembers the
// last report.
class PartOfJob final : public JobContext {
 public:
  PartOfJob(JobContext& whole, std::string prefix, double begin, double end)
      : whole_(whole), prefix_(std::move(prefix)), begin_(begin), end_(end) {}

  absl::Status Checkpoint() override { return whole_.Checkpoint(); }
  void Report(const JobProgress& progress) override {
    last_ = progress;
    last_.fraction = begin_ + (end_ - begin_) * progress.fraction;
    whole_.Report(last_);
  }
  absl::Status SavePartial(std::string_view key, std::string_view bytes) override {
    return whole_.SavePartial(prefix_ + std::string(key), bytes);
  }
  absl::StatusOr<std::optional<std::string>> LoadPartial(std::string_view key) override {
    return whole_.LoadPartial(prefix_ + std::string(key));
  }

  const JobProgress& last() const { return last_; }

 private:
  JobContext& whole_;
  const std::string prefix_;
  const double begin_, end_;
  JobProgress last_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_PART_OF_JOB_H_
