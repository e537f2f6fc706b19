// One thread that runs closures in order, now or at a time. The job manager keeps one at normal priority beside its
// workers at idle priority.
#ifndef TRIMTAB_SERVER_JOBS_TASK_THREAD_H_
#define TRIMTAB_SERVER_JOBS_TASK_THREAD_H_

#include <deque>
#include <functional>
#include <map>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/base/clock.h"

namespace trimtab {

// Thread-safe. The thread inherits the scheduling policy of the thread that makes the object.
class TaskThread {
 public:
  explicit TaskThread(const Clock& clock);
  ~TaskThread();
  TaskThread(const TaskThread&) = delete;
  TaskThread& operator=(const TaskThread&) = delete;

  // Runs `task` on the thread, after those posted before. Dropped after Stop.
  void Post(std::function<void()> task);
  // The same, not before `time` by the clock.
  void PostAt(absl::Time time, std::function<void()> task);
  // Runs `work` on the thread and returns its result. On the thread itself and after Stop it runs at once.
  absl::Status Run(absl::FunctionRef<absl::Status()> work);
  // Runs what was posted to run now, drops what was posted for later, ends the thread. Idempotent; not from the thread.
  void Stop();

 private:
  void Loop();
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !tasks_.empty() || stopping_ || later_changed_; }

  const Clock& clock_;
  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  std::multimap<absl::Time, std::function<void()>> later_ ABSL_GUARDED_BY(mutex_);
  bool later_changed_ ABSL_GUARDED_BY(mutex_) = false;  // the loop must look for the earliest again
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // joined by the first Stop
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_JOBS_TASK_THREAD_H_
