#include "server/jobs/task_thread.h"

#include <utility>

#include "absl/synchronization/notification.h"

namespace trimtab {

TaskThread::TaskThread(const Clock& clock) : clock_(clock), thread_([this] { Loop(); }) {}

TaskThread::~TaskThread() { Stop(); }

void TaskThread::Post(std::function<void()> task) {
  absl::MutexLock lock(&mutex_);
  if (!stopping_) tasks_.push_back(std::move(task));
}

void TaskThread::PostAt(absl::Time time, std::function<void()> task) {
  absl::MutexLock lock(&mutex_);
  if (stopping_) return;
  later_.emplace(time, std::move(task));
  later_changed_ = true;
}

absl::Status TaskThread::Run(absl::FunctionRef<absl::Status()> work) {
  if (std::this_thread::get_id() == thread_.get_id()) return work();
  absl::Status status;
  absl::Notification done;
  {
    absl::ReleasableMutexLock lock(&mutex_);
    if (stopping_) {
      lock.Release();
      return work();
    }
    tasks_.push_back([&] {
      status = work();
      done.Notify();
    });
  }
  done.WaitForNotification();
  return status;
}

void TaskThread::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;
    stopping_ = true;
  }
  thread_.join();
}

void TaskThread::Loop() {
  absl::MutexLock lock(&mutex_);
  for (;;) {
    later_changed_ = false;
    const absl::Time now = clock_.Now();
    while (!later_.empty() && later_.begin()->first <= now) {
      tasks_.push_back(std::move(later_.begin()->second));
      later_.erase(later_.begin());
    }
    if (tasks_.empty()) {
      if (stopping_) return;
      const absl::Duration pause = later_.empty() ? absl::InfiniteDuration() : later_.begin()->first - now;
      mutex_.AwaitWithTimeout(absl::Condition(this, &TaskThread::HasWork), pause);
      continue;
    }
    std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    mutex_.Unlock();
    task();
    task = nullptr;  // what it holds goes here, not under the mutex
    mutex_.Lock();
  }
}

}  // namespace trimtab
