#include "server/jobs/job_waiters.h"

#include <algorithm>
#include <utility>

namespace trimtab {

JobWaiters::Handle JobWaiters::Add(const std::string& job, Done done) {
  Handle waiter = std::make_shared<Done>(std::move(done));
  absl::Status closed;
  {
    absl::MutexLock lock(&mutex_);
    closed = closed_;
    if (closed.ok()) waiters_[job].push_back(waiter);
  }
  if (!closed.ok()) (*waiter)(closed);
  return waiter;
}

void JobWaiters::Tell(const std::string& job, const Handle& waiter, const absl::StatusOr<JobRecord>& record) {
  {
    absl::MutexLock lock(&mutex_);
    const auto found = waiters_.find(job);
    if (found == waiters_.end()) return;
    std::vector<Handle>& waiters = found->second;
    const auto place = std::find(waiters.begin(), waiters.end(), waiter);
    if (place == waiters.end()) return;
    waiters.erase(place);
    if (waiters.empty()) waiters_.erase(found);
  }
  (*waiter)(record);
}

void JobWaiters::TellAll(const std::string& job, const absl::StatusOr<JobRecord>& record) {
  std::vector<Handle> waiters;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = waiters_.find(job);
    if (found == waiters_.end()) return;
    waiters = std::move(found->second);
    waiters_.erase(found);
  }
  for (const Handle& waiter : waiters) (*waiter)(record);
}

void JobWaiters::Close(const absl::Status& reason) {
  std::map<std::string, std::vector<Handle>> waiters;
  {
    absl::MutexLock lock(&mutex_);
    closed_ = reason;
    waiters.swap(waiters_);
  }
  for (const auto& [job, handles] : waiters) {
    for (const Handle& waiter : handles) (*waiter)(reason);
  }
}

}  // namespace trimtab
