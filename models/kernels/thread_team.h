// A team of threads for the short parallel sections of one forward pass: starting one costs about a microsecond where
// OpenMP's passive threads cost ten or more, and a busy neighbour never stalls it.
#ifndef TRIMTAB_MODELS_KERNELS_THREAD_TEAM_H_
#define TRIMTAB_MODELS_KERNELS_THREAD_TEAM_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace trimtab {

// Each thread, the caller too, has its range of neighbouring tasks, which it claims from the front, one by one; then it
// helps the others from the back of theirs. Neighbouring tasks mostly read neighbouring memory, which the processor's
// look-ahead then sees as one long stream: tasks that threads take in turn read a third less per second. The caller
// waits only for tasks that a worker has begun: a worker that the system does not run costs nothing. Workers look for
// work for a short while after a section and then sleep. One caller at a time.
class ThreadTeam {
 public:
  explicit ThreadTeam(int size);  // the caller and size - 1 workers; at least 1
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }
  // body(task) for every task in [0, tasks), each once, in any order; returns when all are done. `body` must not throw
  // and must not call Run.
  void Run(int64_t tasks, absl::FunctionRef<void(int64_t task)> body);

 private:
  using Body = absl::FunctionRef<void(int64_t task)>;
  // What is left of a thread's range in the section in progress: its end (upper half) and the next task (lower half).
  struct alignas(64) Range {
    std::atomic<uint64_t> left{0};
  };

  // Takes a task of the section in progress for thread `self`: its number, or -1.
  int64_t Claim(size_t self);
  bool HasTask() const;
  void RunSection(int64_t first, int64_t tasks, Body body);
  void Work(size_t self);

  // By thread; the caller is thread 0. A successful claim is of the section whose body is then read.
  std::vector<Range> ranges_;
  alignas(64) std::atomic<int64_t> done_{0};
  const Body* body_ = nullptr;  // of the section; written before the ranges, read after a claim
  int64_t first_ = 0;           // number of the section's first task
  alignas(64) std::atomic<uint32_t> wakes_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

// Makes `team` (null: none) the calling thread's until the scope ends.
class ScopedTeam {
 public:
  explicit ScopedTeam(ThreadTeam* team);
  ~ScopedTeam();
  ScopedTeam(const ScopedTeam&) = delete;
  ScopedTeam& operator=(const ScopedTeam&) = delete;

 private:
  ThreadTeam* const before_;
};

// Runs body(task) for every task in [0, tasks) on the calling thread's team; with at::parallel_for without one. `body`
// must not throw. Results must not depend on which thread does what.
void ParallelTasks(int64_t tasks, absl::FunctionRef<void(int64_t task)> body);
// How many threads ParallelTasks uses here.
int ParallelThreads();

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_KERNELS_THREAD_TEAM_H_
