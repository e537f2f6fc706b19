// Models that come and go while the server runs: jobs that load and unload them, and what a start takes up again.
// The operator lane's worker; Restore: main thread.
#ifndef TRIMTAB_SERVER_MODEL_JOBS_H_
#define TRIMTAB_SERVER_MODEL_JOBS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/job_context.h"
#include "server/jobs/job_manager.h"
#include "server/model_host.h"
#include "server/objective_publisher.h"
#include "server/registry/registry.h"

namespace trimtab {

class ModelJobs {
 public:
  // All must outlive it.
  struct Parts {
    Registry& registry;
    ModelHost& host;
    ObjectivePublisher& publisher;
    JobManager& jobs;
    const Clock& clock;
    absl::Duration drain_timeout;  // of unloads that give none
    // For calls to let go of a model whose engine has ended them: a client that does not read holds its call, and with
    // it the model's memory. The unload ends all the same then.
    absl::Duration release_timeout = absl::Seconds(30);
  };
  explicit ModelJobs(const Parts& parts) : parts_(parts) {}

  // Registers the kinds "load" and "unload".
  void Register();

  // Loads the models that the registry remembers, before the jobs start. One that cannot be loaded is listed in
  // STATE_FAILED and tried again by the next start; one that has ended kMaxUnfinishedStarts servers in a row is not
  // tried. UNAVAILABLE when the registry fails.
  absl::Status Restore();
  static constexpr int64_t kMaxUnfinishedStarts = 3;

 private:
  absl::Status Load(const JobRecord& job, JobContext& context) const;
  absl::Status Unload(const JobRecord& job, JobContext& context) const;
  // The end of a job that failed or was cancelled.
  absl::Status EndLoad(const JobRecord& job, const absl::Status& error) const;
  absl::Status EndUnload(const JobRecord& job, const absl::Status& error) const;
  void AnnounceLoad(const JobRecord& job) const;
  absl::Status RestoreOne(const ModelRecord& record) const;
  // Fits and drift evaluations of the model stop at their next checkpoint.
  absl::Status CancelJobsOf(const std::string& model) const;
  // Nothing of the model is left in memory, but for what a call holds beyond the release time-out.
  absl::Status TakeDown(const std::string& id, JobContext& context) const;

  const Parts parts_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_MODEL_JOBS_H_
