// What running jobs tell: progress, made durable now and then, and the counts of the metrics.
#include <algorithm>
#include <utility>

#include "server/jobs/job_manager_impl.h"

namespace trimtab {

absl::Status JobManager::Impl::CheckEntry(const Entry& entry) {
  absl::MutexLock lock(&mutex_);
  if (entry.cancel) return CancelledStatus(entry.cancel_reason);
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

}  // namespace trimtab
