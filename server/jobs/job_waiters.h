// Who waits for which job to end. Used by the job manager.
#ifndef TRIMTAB_SERVER_JOBS_JOB_WAITERS_H_
#define TRIMTAB_SERVER_JOBS_JOB_WAITERS_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/registry/registry.h"

namespace trimtab {

// Every waiter is told once. Thread-safe; waiters are called on the telling thread, without a lock.
class JobWaiters {
 public:
  using Done = std::function<void(absl::StatusOr<JobRecord>)>;
  using Handle = std::shared_ptr<Done>;

  // `done` is called at the first Tell or TellAll, or here after Close.
  Handle Add(const std::string& job, Done done);
  // Nothing when it has been told already.
  void Tell(const std::string& job, const Handle& waiter, const absl::StatusOr<JobRecord>& record);
  void TellAll(const std::string& job, const absl::StatusOr<JobRecord>& record);
  // Tells all waiters, also later ones, `reason`.
  void Close(const absl::Status& reason);

 private:
  absl::Mutex mutex_;
  absl::Status closed_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::vector<Handle>> waiters_ ABSL_GUARDED_BY(mutex_);  // not told yet, by job
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_JOBS_JOB_WAITERS_H_
