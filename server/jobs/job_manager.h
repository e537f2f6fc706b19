// Runs jobs: a bounded queue, worker threads at idle scheduling priority, cancellation, durable progress, resumption
// after a crash. Knows no kind of job: the composition root registers a runner per kind.
#ifndef TRIMTAB_SERVER_JOBS_JOB_MANAGER_H_
#define TRIMTAB_SERVER_JOBS_JOB_MANAGER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/job_context.h"
#include "server/registry/registry.h"

namespace trimtab {

struct JobManagerConfig {
  int workers = 1;
  int64_t max_queued = 64;    // beyond it JOB_QUEUE_FULL
  bool idle_priority = true;  // SCHED_IDLE for workers (and the threads they start)
  int threads_per_job = 0;    // intra-op threads of a worker; 0: all cores (for on_worker_start)
  // Called on each worker thread before its first job; sets the thread's number of intra-op threads.
  std::function<void()> on_worker_start;
  // A job that was under way in so many servers that died fails instead of ending the next one too; also the number of
  // times that a job is run when UNAVAILABLE ends it.
  int max_attempts = 5;
  absl::Duration progress_interval = absl::Milliseconds(500);  // between durable updates of a job's progress
  absl::Duration retry_delay = absl::Seconds(1);  // before what the storage refused is tried again; doubles each time
};

// Work waits only behind work of its own lane.
enum class JobLane {
  kBackground,  // long computations: at idle priority, behind the gate
  kOperator,    // what an operator waits for, such as a model to be loaded: one worker at normal priority
};

struct JobProgressSnapshot {
  JobProgress progress;
  absl::Duration elapsed, eta = absl::InfiniteDuration();  // eta: infinite until it can be estimated
  absl::Time create_time, update_time;
};

class JobMetrics {
 public:
  virtual ~JobMetrics() = default;
  virtual void OnJobCounts(std::string_view kind, int64_t queued, int64_t running) = 0;
  virtual void OnJobEnd(std::string_view kind, std::string_view result, absl::Duration queued, absl::Duration run) = 0;
  virtual void OnJobProgress(std::string_view kind, double fraction, absl::Duration oldest_running_age) = 0;
};

// Thread-safe.
class JobManager {
 public:
  // Runs one job to its end on a worker thread. It commits its own success through the registry (one transaction with
  // its results) and returns OK, or returns why it failed; then `fail` of its kind commits the failure: it gets the
  // record with state kFailed or kCancelled and the last metadata, and adds the serialized error. CANCELLED and
  // UNAVAILABLE (shutdown) from JobContext::Checkpoint must be returned unchanged. Another UNAVAILABLE (storage,
  // engine) has the job run again after a delay, up to max_attempts. Exceptions (c10::Error, std::bad_alloc) are caught
  // by the manager and become INTERNAL and RESOURCE_EXHAUSTED.
  struct Runner {
    std::function<absl::Status(const JobRecord& job, JobContext& context)> run;
    std::function<absl::Status(const JobRecord& job, const absl::Status& error)> fail;
    // Serializes progress for the operation's metadata.
    std::function<std::string(const JobRecord& job, const JobProgressSnapshot& progress)> metadata;
    JobLane lane = JobLane::kBackground;
  };

  JobManager(Registry& registry, const JobManagerConfig& config, const Clock& clock, JobMetrics* metrics);
  ~JobManager();

  // Before Start.
  void Register(std::string kind, Runner runner);
  // Takes up unfinished jobs of the registry (those of unknown kinds stay there), then starts the workers.
  absl::Status Start();
  // Reserves a place in the lane's queue for a job about to be written to the registry: RESOURCE_EXHAUSTED
  // (JOB_QUEUE_FULL with retry info) or UNAVAILABLE (SHUTTING_DOWN). Exactly one of Enqueue and Unreserve must follow.
  absl::Status Reserve(JobLane lane = JobLane::kBackground);
  void Unreserve(JobLane lane = JobLane::kBackground);
  // The job is durable: run it.
  void Enqueue(const JobRecord& job);

  // Durable request to cancel; takes effect at the job's next checkpoint (at once while queued). NOT_FOUND; OK when
  // done. `why` is what its operation says then, unless the server restarts in between.
  absl::Status Cancel(std::string_view name, std::string_view why = "the job was cancelled");
  // Stored record with live metadata when it is running.
  absl::StatusOr<JobRecord> Get(std::string_view name);
  // Calls `done` once, from a manager's thread or at once, when the job has ended or at `deadline`. Never blocks.
  void Wait(std::string_view name, absl::Time deadline, std::function<void(absl::StatusOr<JobRecord>)> done);
  // Jobs stop at their next checkpoint and stay resumable. Idempotent; blocks until the workers have ended.
  void Shutdown();
  // Optional, before Start: called by workers at checkpoints; blocks a little while the engine is busy (DeviceGate).
  void set_gate(std::function<void()> gate);
  // Runs `work` on the manager's own thread, at normal priority, and returns its result. For a runner's commits: a
  // worker at idle priority that held the registry's mutex would keep every caller of the registry waiting for as long
  // as the engine keeps the processors busy. The manager does so itself with progress, partial results and `fail`.
  absl::Status RunAtNormalPriority(absl::FunctionRef<absl::Status()> work);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_JOBS_JOB_MANAGER_H_
