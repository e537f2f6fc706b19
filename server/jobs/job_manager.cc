// The queue, and what callers ask of it.
#include "server/jobs/job_manager.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/jobs/job_manager_impl.h"

namespace trimtab {

absl::Status JobManager::Impl::Start() {
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<JobRecord> unfinished, registry_.UnfinishedJobs());
  for (const JobRecord& job : unfinished) Enqueue(job, /*reserved=*/false);
  if (!unfinished.empty()) LogInfo("took up unfinished jobs", {{"jobs", absl::StrCat(unfinished.size())}});
  TellCounts();
  for (int i = 0; i < config_.workers; ++i) workers_.emplace_back([this] { WorkerLoop(JobLane::kBackground); });
  const bool operators = std::any_of(runners_.begin(), runners_.end(),
                                     [](const auto& runner) { return runner.second.lane == JobLane::kOperator; });
  if (operators) workers_.emplace_back([this] { WorkerLoop(JobLane::kOperator); });
  return absl::OkStatus();
}

absl::Status JobManager::Impl::Reserve(JobLane lane) {
  absl::MutexLock lock(&mutex_);
  if (stopping_) return ShuttingDown();
  if (static_cast<int64_t>(LaneOf(lane).queue.size()) + LaneOf(lane).reserved >= config_.max_queued) {
    absl::Duration soonest = absl::Seconds(60);
    for (const auto& [name, entry] : entries_) {
      if (entry->phase == Phase::kRunning && entry->runner.lane == lane)
        soonest = std::min(soonest, entry->tracker.Eta(clock_.Now()));
    }
    return OverloadError(kJobQueueFull, absl::StrCat("the queue of jobs is full (", config_.max_queued, ")"),
                         std::max(soonest, absl::Seconds(1)));
  }
  ++LaneOf(lane).reserved;
  return absl::OkStatus();
}

void JobManager::Impl::Unreserve(JobLane lane) {
  absl::MutexLock lock(&mutex_);
  --LaneOf(lane).reserved;
}

void JobManager::Impl::Enqueue(const JobRecord& job, bool reserved) {
  {
    absl::MutexLock lock(&mutex_);
    const auto runner = runners_.find(job.kind);
    if (runner == runners_.end()) {
      LogWarning("this server cannot run a job of this kind; it stays in the registry",
                 {{"job", job.name}, {"kind", job.kind}});
      return;
    }
    Lane& lane = LaneOf(runner->second.lane);
    if (reserved) --lane.reserved;
    // It is durable: the next server takes it up.
    if (stopping_) return;
    auto entry = std::make_shared<Entry>(job, runner->second);
    if (entries_.emplace(job.name, entry).second) lane.queue.push_back(std::move(entry));
  }
  TellCounts();
}

absl::Status JobManager::Impl::Cancel(std::string_view name, std::string_view why) {
  TRIMTAB_RETURN_IF_ERROR(registry_.RequestJobCancel(name));
  EntryPtr queued;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = entries_.find(std::string(name));
    if (found == entries_.end()) return absl::OkStatus();
    found->second->cancel = true;
    found->second->cancel_reason = std::string(why);
    if (found->second->phase != Phase::kQueued) return absl::OkStatus();
    queued = found->second;
    queued->phase = Phase::kEnding;
    std::deque<EntryPtr>& queue = LaneOf(queued->runner.lane).queue;
    queue.erase(std::find(queue.begin(), queue.end(), queued));
  }
  TellCounts();
  const absl::StatusOr<JobRecord> end = EndWithError(queued, CancelledStatus(why), /*retry=*/false);
  if (absl::IsUnavailable(end.status())) {
    // The request is durable: a worker ends the job when the storage takes it.
    absl::MutexLock lock(&mutex_);
    queued->phase = Phase::kQueued;
    LaneOf(queued->runner.lane).queue.push_front(queued);
    return absl::OkStatus();
  }
  Forget(queued, end);
  return end.status();
}

absl::StatusOr<JobRecord> JobManager::Impl::Get(std::string_view name) {
  TRIMTAB_ASSIGN_OR_RETURN(JobRecord record, registry_.GetJob(name));
  if (record.state != JobRecord::State::kRunning) return record;
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
      for (Lane& lane : lanes_) lane.queue.clear();
      entries_.clear();
    }
    waiters_.Close(ShuttingDown());
    service_.Stop();
  });
}

JobManager::JobManager(Registry& registry, const JobManagerConfig& config, const Clock& clock, JobMetrics* metrics)
    : impl_(std::make_unique<Impl>(registry, config, clock, metrics)) {}
JobManager::~JobManager() { Shutdown(); }
void JobManager::Register(std::string kind, Runner runner) { impl_->Register(std::move(kind), std::move(runner)); }
absl::Status JobManager::Start() { return impl_->Start(); }
absl::Status JobManager::Reserve(JobLane lane) { return impl_->Reserve(lane); }
void JobManager::Unreserve(JobLane lane) { impl_->Unreserve(lane); }
void JobManager::Enqueue(const JobRecord& job) { impl_->Enqueue(job, /*reserved=*/true); }
absl::Status JobManager::Cancel(std::string_view name, std::string_view why) { return impl_->Cancel(name, why); }
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
