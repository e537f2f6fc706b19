#include "server/jobs/job_manager.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/jobs/job_waiters.h"
#include "server/jobs/progress_tracker.h"
#include "server/jobs/task_thread.h"

namespace trimtab {
namespace {

using State = JobRecord::State;

constexpr absl::Duration kMaxRetryDelay = absl::Seconds(30);

bool HasEnded(const JobRecord& job) { return job.state > State::kRunning; }

absl::Status CancelledStatus() {
  return ReasonError(absl::StatusCode::kCancelled, kCancelled, "the job was cancelled");
}
absl::Status ShuttingDown() {
  return ReasonError(absl::StatusCode::kUnavailable, kShuttingDown, "the server is shutting down");
}
absl::Status CrashLoop(int64_t attempts) {
  return ReasonError(absl::StatusCode::kInternal, kInternal,
                     absl::StrCat("the job was started ", attempts,
                                  " times and the server died each time before the job ended: it is not tried again"),
                     {{"attempts", absl::StrCat(attempts)}});
}

std::string_view EndName(State state) {
  return state == State::kSucceeded ? "succeeded" : state == State::kCancelled ? "cancelled" : "failed";
}

// The first line: LibTorch appends a backtrace.
absl::Status FromException(const std::exception& exception) {
  const std::string text(exception.what());
  const std::string line = text.substr(0, text.find('\n'));
  if (dynamic_cast<const std::bad_alloc*>(&exception) != nullptr ||
      text.find("can't allocate memory") != std::string::npos) {
    return ReasonError(absl::StatusCode::kResourceExhausted, kDeviceOutOfMemory, "the job ran out of memory: " + line);
  }
  return ReasonError(absl::StatusCode::kInternal, kInternal, "the job failed: " + line);
}

void UseIdlePriority() {
  const sched_param parameter{};
  const int error = pthread_setschedparam(pthread_self(), SCHED_IDLE, &parameter);
  if (error != 0) LogWarning("jobs run at normal priority", {{"error", std::strerror(error)}});
}

}  // namespace

// Locking: `mutex_` guards the queue and the entries and is never held over a call to the registry, a
// runner or a `done`.
class JobManager::Impl {
 public:
  Impl(Registry& registry, const JobManagerConfig& config, const Clock& clock, JobMetrics* metrics)
      : registry_(registry), config_(config), clock_(clock), metrics_(metrics), service_(clock) {}

  void Register(std::string kind, Runner runner) { runners_.emplace(std::move(kind), std::move(runner)); }
  void set_gate(std::function<void()> gate) { gate_ = std::move(gate); }
  absl::Status Start();
  absl::Status Reserve();
  void Unreserve();
  void Enqueue(const JobRecord& job, bool reserved);
  absl::Status Cancel(std::string_view name);
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
    absl::Time queued_since, running_since;
    ProgressTracker tracker;
    absl::Time last_persist = absl::InfinitePast();
    bool persist_posted = false;
  };
  using EntryPtr = std::shared_ptr<Entry>;
  class Context;

  void WorkerLoop();
  EntryPtr Take();
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
  int64_t reserved_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<EntryPtr> queue_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, EntryPtr> entries_ ABSL_GUARDED_BY(mutex_);  // queued, running, ending; by name

  JobWaiters waiters_;
  std::once_flag shutdown_;
  std::vector<std::thread> workers_;
  // At normal priority: writes to the registry, deadlines of waiters, calls of `done`.
  TaskThread service_;
};

// One job's door to the manager; lives as long as its run.
class JobManager::Impl::Context final : public JobContext {
 public:
  Context(Impl* manager, EntryPtr entry) : manager_(manager), entry_(std::move(entry)), name_(entry_->name) {}

  absl::Status Checkpoint() override {
    TRIMTAB_RETURN_IF_ERROR(manager_->CheckEntry(*entry_));
    if (manager_->gate_) manager_->gate_();
    return manager_->CheckEntry(*entry_);
  }
  void Report(const JobProgress& progress) override { manager_->Report(entry_, progress); }
  absl::Status SavePartial(std::string_view key, std::string_view bytes) override {
    return manager_->service_.Run([&] { return manager_->registry_.SavePartial(name_, key, bytes); });
  }
  absl::StatusOr<std::optional<std::string>> LoadPartial(std::string_view key) override {
    absl::StatusOr<std::optional<std::string>> partial;
    TRIMTAB_RETURN_IF_ERROR(manager_->service_.Run([&] {
      partial = manager_->registry_.LoadPartial(name_, key);
      return partial.status();
    }));
    return partial;
  }

 private:
  Impl* const manager_;
  const EntryPtr entry_;
  const std::string name_;
};

absl::Status JobManager::Impl::Start() {
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<JobRecord> unfinished, registry_.UnfinishedJobs());
  for (const JobRecord& job : unfinished) Enqueue(job, /*reserved=*/false);
  if (!unfinished.empty()) LogInfo("took up unfinished jobs", {{"jobs", absl::StrCat(unfinished.size())}});
  TellCounts();
  for (int i = 0; i < config_.workers; ++i) workers_.emplace_back([this] { WorkerLoop(); });
  return absl::OkStatus();
}

absl::Status JobManager::Impl::Reserve() {
  absl::MutexLock lock(&mutex_);
  if (stopping_) return ShuttingDown();
  if (static_cast<int64_t>(queue_.size()) + reserved_ >= config_.max_queued) {
    absl::Duration soonest = absl::Seconds(60);
    for (const auto& [name, entry] : entries_) {
      if (entry->phase == Phase::kRunning) soonest = std::min(soonest, entry->tracker.Eta(clock_.Now()));
    }
    return OverloadError(kJobQueueFull, absl::StrCat("the queue of jobs is full (", config_.max_queued, ")"),
                         std::max(soonest, absl::Seconds(1)));
  }
  ++reserved_;
  return absl::OkStatus();
}

void JobManager::Impl::Unreserve() {
  absl::MutexLock lock(&mutex_);
  --reserved_;
}

void JobManager::Impl::Enqueue(const JobRecord& job, bool reserved) {
  {
    absl::MutexLock lock(&mutex_);
    if (reserved) --reserved_;
    const auto runner = runners_.find(job.kind);
    if (runner == runners_.end()) {
      LogWarning("this server cannot run a job of this kind; it stays in the registry",
                 {{"job", job.name}, {"kind", job.kind}});
      return;
    }
    // It is durable: the next server takes it up.
    if (stopping_) return;
    auto entry = std::make_shared<Entry>(job, runner->second);
    if (entries_.emplace(job.name, entry).second) queue_.push_back(std::move(entry));
  }
  TellCounts();
}

absl::Status JobManager::Impl::Cancel(std::string_view name) {
  TRIMTAB_RETURN_IF_ERROR(registry_.RequestJobCancel(name));
  EntryPtr queued;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = entries_.find(std::string(name));
    if (found == entries_.end()) return absl::OkStatus();
    found->second->cancel = true;
    if (found->second->phase != Phase::kQueued) return absl::OkStatus();
    queued = found->second;
    queued->phase = Phase::kEnding;
    queue_.erase(std::find(queue_.begin(), queue_.end(), queued));
  }
  TellCounts();
  const absl::StatusOr<JobRecord> end = EndWithError(queued, CancelledStatus(), /*retry=*/false);
  if (absl::IsUnavailable(end.status())) {
    // The request is durable: a worker ends the job when the storage takes it.
    absl::MutexLock lock(&mutex_);
    queued->phase = Phase::kQueued;
    queue_.push_front(queued);
    return absl::OkStatus();
  }
  Forget(queued, end);
  return end.status();
}

absl::StatusOr<JobRecord> JobManager::Impl::Get(std::string_view name) {
  TRIMTAB_ASSIGN_OR_RETURN(JobRecord record, registry_.GetJob(name));
  if (record.state != State::kRunning) return record;
  EntryPtr entry;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = entries_.find(record.name);
    if (found == entries_.end() || found->second->phase != Phase::kRunning) return record;
    entry = found->second;
  }
  record.metadata = Metadata(*entry, record);
  return record;
}

void JobManager::Impl::Wait(const std::string& name, absl::Time deadline, JobWaiters::Done done) {
  const JobWaiters::Handle waiter = waiters_.Add(name, std::move(done));
  service_.Post([=, this] { CheckWaiters(name); });
  if (deadline == absl::InfiniteFuture()) return;
  // The timer of a waiter that was told long ago holds no more than its empty shell.
  service_.PostAt(deadline, [this, name, weak = std::weak_ptr<JobWaiters::Done>(waiter)] {
    const JobWaiters::Handle late = weak.lock();
    if (late != nullptr) waiters_.Tell(name, late, Get(name));
  });
}

// It may have ended before the waiter came, or not exist.
void JobManager::Impl::CheckWaiters(const std::string& name) {
  const absl::StatusOr<JobRecord> record = registry_.GetJob(name);
  if (record.ok() && !HasEnded(*record)) return;
  {
    absl::MutexLock lock(&mutex_);
    // Ended a moment ago: whoever ended it tells its waiters.
    if (record.ok() && entries_.contains(name)) return;
  }
  waiters_.TellAll(name, record);
}

void JobManager::Impl::Shutdown() {
  std::call_once(shutdown_, [this] {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    for (std::thread& worker : workers_) worker.join();
    {
      absl::MutexLock lock(&mutex_);
      queue_.clear();
      entries_.clear();
    }
    waiters_.Close(ShuttingDown());
    service_.Stop();
  });
}

void JobManager::Impl::WorkerLoop() {
  pthread_setname_np(pthread_self(), "trimtab-job");
  // Threads that this one starts, such as its OpenMP team, inherit the policy.
  if (config_.idle_priority) UseIdlePriority();
  if (config_.on_worker_start) config_.on_worker_start();
  while (const EntryPtr entry = Take()) RunJob(entry);
}

JobManager::Impl::EntryPtr JobManager::Impl::Take() {
  EntryPtr entry;
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](Impl* manager) ABSL_NO_THREAD_SAFETY_ANALYSIS { return manager->stopping_ || !manager->queue_.empty(); },
        this));
    if (stopping_) return nullptr;
    entry = std::move(queue_.front());
    queue_.pop_front();
    entry->phase = Phase::kRunning;
    entry->running_since = clock_.Now();
    entry->tracker.Start(entry->running_since);
  }
  TellCounts();
  return entry;
}

void JobManager::Impl::RunJob(const EntryPtr& entry) {
  for (int retries = 0;; ++retries) {
    const absl::Status begun = service_.Run([&] { return Begin(*entry); });
    const absl::Status status = begun.ok() ? RunCaught(entry) : begun;
    if (status.ok()) return Forget(entry, EndWithSuccess(entry));
    bool stopping;
    {
      absl::MutexLock lock(&mutex_);
      stopping = stopping_;
    }
    if (absl::IsUnavailable(status) && stopping) return PutBack(entry);
    if (absl::IsNotFound(begun)) return Forget(entry, registry_.GetJob(entry->name));
    const bool again = absl::IsUnavailable(status) && (!begun.ok() || entry->record.attempts < config_.max_attempts);
    if (!again) return Forget(entry, EndWithError(entry, status));
    LogWarning("a job is tried again", {{"job", entry->record.name}, {"error", status.ToString()}});
    Pause(entry, RetryDelay(retries));
  }
}

absl::Status JobManager::Impl::Begin(Entry& entry) {
  TRIMTAB_ASSIGN_OR_RETURN(entry.record, registry_.GetJob(entry.record.name));
  JobRecord& record = entry.record;
  if (HasEnded(record)) return absl::NotFoundError("the job has ended already");
  if (record.cancel_requested) {
    absl::MutexLock lock(&mutex_);
    entry.cancel = true;
  }
  TRIMTAB_RETURN_IF_ERROR(CheckEntry(entry));
  if (record.attempts >= config_.max_attempts) return CrashLoop(record.attempts);
  JobRecord started = record;
  started.state = State::kRunning;
  ++started.attempts;
  TRIMTAB_RETURN_IF_ERROR(registry_.UpdateJob(started));
  record = std::move(started);
  LogInfo("a job starts", {{"job", record.name}, {"kind", record.kind}, {"attempt", absl::StrCat(record.attempts)}});
  return absl::OkStatus();
}

absl::Status JobManager::Impl::RunCaught(const EntryPtr& entry) {
  Context context(this, entry);
  try {
    return entry->runner.run(entry->record, context);
  } catch (const std::exception& exception) {
    return FromException(exception);
  }
}

// An orderly shutdown: the run does not count as one that the server died in.
void JobManager::Impl::PutBack(const EntryPtr& entry) {
  {
    absl::MutexLock lock(&mutex_);
    entry->phase = Phase::kEnding;
  }
  const absl::Status status = service_.Run([&] {
    JobRecord record = entry->record;
    if (record.state != State::kRunning) return absl::OkStatus();  // it had not begun
    record.state = State::kQueued;
    --record.attempts;
    record.metadata = Metadata(*entry, record);
    return registry_.UpdateJob(record);
  });
  LogInfo("a job stops and resumes at the next start",
          {{"job", entry->record.name}, {"saved", status.ok() ? "yes" : std::string(status.message())}});
}

absl::StatusOr<JobRecord> JobManager::Impl::EndWithSuccess(const EntryPtr& entry) {
  absl::StatusOr<JobRecord> end;
  const absl::Status status = service_.Run([&]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(end, registry_.GetJob(entry->record.name));
    if (!HasEnded(*end)) return absl::OkStatus();
    {
      absl::MutexLock lock(&mutex_);
      entry->phase = Phase::kEnding;
    }
    // The last progress; the job is done whether or not this can be kept.
    end->metadata = Metadata(*entry, *end);
    registry_.UpdateJob(*end).IgnoreError();
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  if (HasEnded(*end)) return end;
  return EndWithError(entry, ReasonError(absl::StatusCode::kInternal, kInternal, "the job ended without a result"));
}

absl::StatusOr<JobRecord> JobManager::Impl::EndWithError(const EntryPtr& entry, const absl::Status& error, bool retry) {
  {
    absl::MutexLock lock(&mutex_);
    entry->phase = Phase::kEnding;
  }
  JobRecord record = entry->record;
  record.state = absl::IsCancelled(error) ? State::kCancelled : State::kFailed;
  record.end_time = clock_.Now();
  record.metadata = Metadata(*entry, record);
  LogInfo("a job ends",
          {{"job", record.name}, {"end", std::string(EndName(record.state))}, {"error", error.ToString()}});
  absl::StatusOr<JobRecord> end;
  for (int retries = 0;; ++retries) {
    const absl::Status status = service_.Run([&]() -> absl::Status {
      absl::Status failed = entry->runner.fail(record, error);
      if (!failed.ok() && !absl::IsUnavailable(failed)) {
        // Whatever is wrong with its resource, the job itself must end.
        LogError("a job's failure could not be committed", {{"job", record.name}, {"error", failed.ToString()}});
        failed = registry_.UpdateJob(record);
        if (absl::IsFailedPrecondition(failed)) failed = absl::OkStatus();  // it had ended before
      }
      TRIMTAB_RETURN_IF_ERROR(failed);
      end = registry_.GetJob(record.name);
      return end.status();
    });
    if (!absl::IsUnavailable(status)) {
      if (!status.ok()) return status;
      return end;
    }
    if (!retry) return status;
    // The storage does not take it. Until it does the job stays unfinished, in a new server too.
    absl::MutexLock lock(&mutex_);
    const bool stopped = mutex_.AwaitWithTimeout(absl::Condition(&stopping_), RetryDelay(retries));
    if (stopped) return status;
  }
}

void JobManager::Impl::Forget(const EntryPtr& entry, absl::StatusOr<JobRecord> end) {
  const std::string name = entry->name;
  absl::Time queued_since, running_since;
  {
    absl::MutexLock lock(&mutex_);
    entries_.erase(name);
    queued_since = entry->queued_since;
    running_since = entry->running_since == absl::Time() ? clock_.Now() : entry->running_since;
  }
  if (end.ok() && metrics_ != nullptr) {
    metrics_->OnJobEnd(entry->kind, EndName(end->state), running_since - queued_since, clock_.Now() - running_since);
  }
  TellCounts();
  service_.Post([this, name, end = std::move(end)] { waiters_.TellAll(name, end); });
}

absl::Status JobManager::Impl::CheckEntry(const Entry& entry) {
  absl::MutexLock lock(&mutex_);
  if (entry.cancel) return CancelledStatus();
  if (stopping_) return ShuttingDown();
  return absl::OkStatus();
}

void JobManager::Impl::Report(const EntryPtr& entry, const JobProgress& progress) {
  const absl::Time now = clock_.Now();
  absl::Time oldest = now;
  {
    absl::MutexLock lock(&mutex_);
    const bool new_phase = entry->tracker.Update(progress, now);
    for (const auto& [name, other] : entries_) {
      if (other->phase == Phase::kRunning && other->kind == entry->kind) {
        oldest = std::min(oldest, other->running_since);
      }
    }
    const absl::Time due = new_phase ? now : std::max(now, entry->last_persist + config_.progress_interval);
    if (!entry->persist_posted || new_phase) {
      entry->persist_posted = true;
      service_.PostAt(due, [this, entry] { Persist(entry); });
    }
  }
  if (metrics_ != nullptr) metrics_->OnJobProgress(entry->kind, progress.fraction, now - oldest);
}

// On the service thread.
void JobManager::Impl::Persist(const EntryPtr& entry) {
  {
    absl::MutexLock lock(&mutex_);
    entry->persist_posted = false;
    if (entry->phase != Phase::kRunning) return;
    entry->last_persist = clock_.Now();
  }
  JobRecord record = entry->record;
  record.metadata = Metadata(*entry, record);
  // Progress that cannot be kept is no reason to stop; nor is a job that its runner has just ended.
  if (!registry_.UpdateJob(record).ok()) return;
  // Also cancelled by what does not go through the manager: its objective was deleted.
  const absl::StatusOr<JobRecord> stored = registry_.GetJob(record.name);
  if (!stored.ok() || !stored->cancel_requested) return;
  absl::MutexLock lock(&mutex_);
  entry->cancel = true;
}

std::string JobManager::Impl::Metadata(const Entry& entry, const JobRecord& record) {
  JobProgressSnapshot snapshot;
  {
    absl::MutexLock lock(&mutex_);
    snapshot = Snapshot(entry, record);
  }
  return entry.runner.metadata(record, snapshot);
}

JobProgressSnapshot JobManager::Impl::Snapshot(const Entry& entry, const JobRecord& record) {
  const absl::Time now = clock_.Now();
  JobProgressSnapshot snapshot{.progress = entry.tracker.progress(), .create_time = record.create_time};
  snapshot.update_time = now;
  if (entry.running_since == absl::Time()) return snapshot;  // it never ran
  snapshot.elapsed = entry.tracker.Elapsed(now);
  snapshot.eta = entry.tracker.Eta(now);
  return snapshot;
}

void JobManager::Impl::Pause(const EntryPtr& entry, absl::Duration delay) {
  absl::MutexLock lock(&mutex_);
  const auto interrupted = [this, &entry, before = entry->cancel]()
                               ABSL_NO_THREAD_SAFETY_ANALYSIS { return stopping_ || entry->cancel != before; };
  mutex_.AwaitWithTimeout(absl::Condition(&interrupted), delay);
}

absl::Duration JobManager::Impl::RetryDelay(int retries) const {
  return std::min(config_.retry_delay * (int64_t{1} << std::min(retries, 10)), kMaxRetryDelay);
}

void JobManager::Impl::TellCounts() {
  if (metrics_ == nullptr) return;
  std::map<std::string_view, std::pair<int64_t, int64_t>> counts;
  for (const auto& [kind, runner] : runners_) counts[kind] = {0, 0};
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, entry] : entries_) {
    if (entry->phase == Phase::kQueued) ++counts[entry->kind].first;
    if (entry->phase == Phase::kRunning) ++counts[entry->kind].second;
  }
  // Under the mutex, so that the last to tell has the last word.
  for (const auto& [kind, count] : counts) metrics_->OnJobCounts(kind, count.first, count.second);
}

JobManager::JobManager(Registry& registry, const JobManagerConfig& config, const Clock& clock, JobMetrics* metrics)
    : impl_(std::make_unique<Impl>(registry, config, clock, metrics)) {}
JobManager::~JobManager() { Shutdown(); }
void JobManager::Register(std::string kind, Runner runner) { impl_->Register(std::move(kind), std::move(runner)); }
absl::Status JobManager::Start() { return impl_->Start(); }
absl::Status JobManager::Reserve() { return impl_->Reserve(); }
void JobManager::Unreserve() { impl_->Unreserve(); }
void JobManager::Enqueue(const JobRecord& job) { impl_->Enqueue(job, /*reserved=*/true); }
absl::Status JobManager::Cancel(std::string_view name) { return impl_->Cancel(name); }
absl::StatusOr<JobRecord> JobManager::Get(std::string_view name) { return impl_->Get(name); }
void JobManager::Wait(std::string_view name, absl::Time deadline, std::function<void(absl::StatusOr<JobRecord>)> done) {
  impl_->Wait(std::string(name), deadline, std::move(done));
}
void JobManager::Shutdown() { impl_->Shutdown(); }
void JobManager::set_gate(std::function<void()> gate) { impl_->set_gate(std::move(gate)); }
absl::Status JobManager::RunAtNormalPriority(absl::FunctionRef<absl::Status()> work) {
  return impl_->RunAtNormalPriority(work);
}

}  // namespace trimtab
