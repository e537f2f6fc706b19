// A worker's run of a job: begin, run, try again, end. On worker threads unless said.
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/jobs/job_manager_impl.h"

namespace trimtab {
namespace {

using State = JobRecord::State;

constexpr absl::Duration kMaxRetryDelay = absl::Seconds(30);

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

// One job's door to the manager; lives as long as its run.
class JobManager::Impl::Context final : public JobContext {
 public:
  Context(Impl* manager, EntryPtr entry) : manager_(manager), entry_(std::move(entry)), name_(entry_->name) {}

  absl::Status Checkpoint() override {
    TRIMTAB_RETURN_IF_ERROR(manager_->CheckEntry(*entry_));
    if (manager_->gate_ && entry_->runner.lane == JobLane::kBackground) manager_->gate_();
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

void JobManager::Impl::WorkerLoop(JobLane lane) {
  pthread_setname_np(pthread_self(), "trimtab-job");
  // Threads that this one starts, such as its OpenMP team, inherit the policy.
  if (config_.idle_priority && lane == JobLane::kBackground) UseIdlePriority();
  if (config_.on_worker_start) config_.on_worker_start();
  while (const EntryPtr entry = Take(lane)) RunJob(entry);
}

JobManager::Impl::EntryPtr JobManager::Impl::Take(JobLane lane) {
  EntryPtr entry;
  {
    absl::MutexLock lock(&mutex_);
    const auto news = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stopping_ || !LaneOf(lane).queue.empty(); };
    mutex_.Await(absl::Condition(&news));
    if (stopping_) return nullptr;
    std::deque<EntryPtr>& queue = LaneOf(lane).queue;
    entry = std::move(queue.front());
    queue.pop_front();
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

void JobManager::Impl::Pause(const EntryPtr& entry, absl::Duration delay) {
  absl::MutexLock lock(&mutex_);
  const auto interrupted = [this, &entry, before = entry->cancel]()
                               ABSL_NO_THREAD_SAFETY_ANALYSIS { return stopping_ || entry->cancel != before; };
  mutex_.AwaitWithTimeout(absl::Condition(&interrupted), delay);
}

absl::Duration JobManager::Impl::RetryDelay(int retries) const {
  return std::min(config_.retry_delay * (int64_t{1} << std::min(retries, 10)), kMaxRetryDelay);
}

}  // namespace trimtab
