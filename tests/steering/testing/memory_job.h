// A JobContext that keeps partial results in memory and can be told to stop at a checkpoint.
#ifndef TRIMTAB_TESTS_STEERING_TESTING_MEMORY_JOB_H_
#define TRIMTAB_TESTS_STEERING_TESTING_MEMORY_JOB_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/job_context.h"

namespace trimtab {

class MemoryJob final : public JobContext {
 public:
  absl::Status Checkpoint() override {
    ++checkpoints;
    if (stop_at > 0 && checkpoints >= stop_at) return stop_with;
    return absl::OkStatus();
  }
  void Report(const JobProgress& report) override { reports.push_back(report); }
  absl::Status SavePartial(std::string_view key, std::string_view bytes) override {
    partials[std::string(key)] = std::string(bytes);
    ++saves;
    return absl::OkStatus();
  }
  absl::StatusOr<std::optional<std::string>> LoadPartial(std::string_view key) override {
    const auto it = partials.find(std::string(key));
    if (it == partials.end()) return std::optional<std::string>();
    return std::optional<std::string>(it->second);
  }

  int64_t checkpoints = 0, saves = 0;
  int64_t stop_at = 0;  // the checkpoint that fails; 0: none
  absl::Status stop_with = absl::CancelledError("cancelled");
  std::vector<JobProgress> reports;
  std::map<std::string, std::string> partials;
};

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_STEERING_TESTING_MEMORY_JOB_H_
