// A few threads that do what gRPC reactions must not: template and tokenizer work, registry calls, detokenising.
#ifndef TRIMTAB_SERVER_RPC_EXECUTOR_H_
#define TRIMTAB_SERVER_RPC_EXECUTOR_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace trimtab {

// Runs tasks in the order they came, on `threads` threads. Thread-safe. Tasks must not wait for other tasks.
class Executor {
 public:
  Executor(int threads, size_t max_queued);
  // Runs what is queued, then joins.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // RESOURCE_EXHAUSTED (QUEUE_FULL with retry info) when max_queued tasks wait. Never blocks.
  absl::Status Post(std::function<void()> task) ABSL_LOCKS_EXCLUDED(mutex_);
  // For continuations of work that was let in already: not subject to max_queued.
  void PostAlways(std::function<void()> task) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run();

  const size_t max_queued_;
  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_EXECUTOR_H_
