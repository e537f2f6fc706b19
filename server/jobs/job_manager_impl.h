// The inside of JobManager, for its own sources: job_manager.cc (the queue and the callers' side), job_worker.cc (a
// worker's run of a job, from its start to its end) and job_progress.cc (what running jobs tell).
#ifndef TRIMTAB_SERVER_JOBS_JOB_MANAGER_IMPL_H_
#define TRIMTAB_SERVER_JOBS_JOB_MANAGER_IMPL_H_

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/base/error.h"
#include "server/jobs/job_manager.h"
#include "server/jobs/job_waiters.h"
#include "server/jobs/progress_tracker.h"
#include "server/jobs/task_thread.h"

namespace trimtab {

inline bool HasEnded(const JobRecord& job) { return job.state > JobRecord::State::kRunning; }

// Why a job stops before its end.
inline absl::Status CancelledStatus(std::string_view why) {
  return ReasonError(absl::StatusCode::kCancelled, kCancelled, why);
}
inline absl::Status ShuttingDown() {
  return ReasonError(absl::StatusCode::kUnavailable, kShuttingDown, "the server is shutting down");
}

// Locking: `mutex_` guards the queue and the entries and is never held over a call to the registry, a
// runner or a `done`.
class JobManager::Impl {
 public:
  Impl(Registry& registry, const JobManagerConfig& config, const Clock& clock, JobMetrics* metrics)
      : registry_(registry), config_(config), clock_(clock), metrics_(metrics), service_(clock) {}

  void Register(std::string kind, Runner runner) { runners_.emplace(std::move(kind), std::move(runner)); }
  void set_gate(std::function<void()> gate) { gate_ = std::move(gate); }
  absl::Status Start();
  absl::Status Reserve(JobLane lane);
  void Unreserve(JobLane lane);
  void Enqueue(const JobRecord& job, bool reserved);
  absl::Status Cancel(std::string_view name, std::string_view why);
  absl::StatusOr<JobRecord> Get(std::string_view name);
  void Wait(const std::string& name, absl::Time deadline, JobWaiters::Done done);
  void Shutdown();
  absl::Status RunAtNormalPriority(absl::FunctionRef<absl::Status()> work) { return service_.Run(work); }

 private:
  enum class Phase { kQueued, kRunning, kEnding };
  // A job that this process has taken on. Fields are guarded by mutex_ unless said.
  struct Entry {
    Entry(const JobRecord& job, const Runner& job_runner)
        : name(job.name), kind(job.kind), runner(job_runner), record(job), queued_since(job.create_time) {}
    const std::string name, kind;
    const Runner& runner;
    JobRecord record;  // written by Begin, on the service thread while the job's worker waits for it
    Phase phase = Phase::kQueued;
    bool cancel = false;
    std::string cancel_reason = "the job was cancelled";
    absl::Time queued_since, running_since;
    ProgressTracker tracker;
    absl::Time last_persist = absl::InfinitePast();
    bool persist_posted = false;
  };
  using EntryPtr = std::shared_ptr<Entry>;
  class Context;
  // What waits for the workers of one lane, guarded by mutex_.
  struct Lane {
    std::deque<EntryPtr> queue;
    int64_t reserved = 0;
  };

  void WorkerLoop(JobLane lane);
  EntryPtr Take(JobLane lane);
  Lane& LaneOf(JobLane lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return lanes_[static_cast<size_t>(lane)]; }
  void RunJob(const EntryPtr& entry);
  // Makes the start of a run durable. NOT_FOUND when the job is no longer there to run; another error ends it
  // (UNAVAILABLE: try again). On the service thread.
  absl::Status Begin(Entry& entry);
  absl::Status RunCaught(const EntryPtr& entry);
  void PutBack(const EntryPtr& entry);
  // Make the end durable; the record as it was stored, or why it could not be.
  absl::StatusOr<JobRecord> EndWithError(const EntryPtr& entry, const absl::Status& error, bool retry = true);
  absl::StatusOr<JobRecord> EndWithSuccess(const EntryPtr& entry);
  void Forget(const EntryPtr& entry, absl::StatusOr<JobRecord> end);

  absl::Status CheckEntry(const Entry& entry);
  void Report(const EntryPtr& entry, const JobProgress& progress);
  void Persist(const EntryPtr& entry);
  std::string Metadata(const Entry& entry, const JobRecord& record);
  JobProgressSnapshot Snapshot(const Entry& entry, const JobRecord& record) ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Waits for `delay`, or until the server stops or the job is cancelled.
  void Pause(const EntryPtr& entry, absl::Duration delay);
  absl::Duration RetryDelay(int retries) const;

  void CheckWaiters(const std::string& name);
  void TellCounts();

  Registry& registry_;
  const JobManagerConfig config_;
  const Clock& clock_;
  JobMetrics* const metrics_;
  std::map<std::string, Runner> runners_;  // const after Start
  std::function<void()> gate_;             // const after Start

  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::array<Lane, 2> lanes_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, EntryPtr> entries_ ABSL_GUARDED_BY(mutex_);  // queued, running, ending; by name

  JobWaiters waiters_;
  std::once_flag shutdown_;
  std::vector<std::thread> workers_;
  // At normal priority: writes to the registry, deadlines of waiters, calls of `done`.
  TaskThread service_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_JOBS_JOB_MANAGER_IMPL_H_
