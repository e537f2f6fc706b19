// A job of a program that runs by itself: partial results are files, Ctrl-C is an interruption. Main thread.
#ifndef TRIMTAB_TOOLS_STUDY_DISK_JOB_H_
#define TRIMTAB_TOOLS_STUDY_DISK_JOB_H_

#include <atomic>
#include <optional>
#include <string>
#include <string_view>

#include "server/base/job_context.h"

namespace trimtab {

class DiskJob final : public JobContext {
 public:
  // `folder` exists. `interrupted` is set from outside and outlives the job.
  DiskJob(std::string folder, const std::atomic<bool>& interrupted);

  // UNAVAILABLE once interrupted: what was saved is kept.
  absl::Status Checkpoint() override;
  void Report(const JobProgress& progress) override;
  // A file that appears whole or not at all.
  absl::Status SavePartial(std::string_view key, std::string_view bytes) override;
  absl::StatusOr<std::optional<std::string>> LoadPartial(std::string_view key) override;

 private:
  std::string PathOf(std::string_view key) const;
  const std::string folder_;
  const std::atomic<bool>& interrupted_;
};

// Writes a file so that it appears whole or not at all; PERMISSION_DENIED.
absl::Status WriteFileAtomically(const std::string& path, std::string_view bytes);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_STUDY_DISK_JOB_H_
