#include "models/kernels/thread_team.h"

#include <ATen/Parallel.h>
#include <immintrin.h>

#include <algorithm>
#include <chrono>

namespace trimtab {
namespace {

constexpr int kHalf = 32;  // bits of a section's word for each number
constexpr int64_t kMaxTasks = int64_t{1} << 30;
constexpr int kLooksPerCheck = 64;  // looks for work between two looks at the clock
constexpr std::chrono::microseconds kAwake{200};

thread_local ThreadTeam* current_team = nullptr;

bool HasTask(uint64_t section) { return (section & 0xffffffffu) < section >> kHalf; }

}  // namespace

ThreadTeam::ThreadTeam(int size) {
  for (int i = 1; i < size; ++i) workers_.emplace_back([this] { Work(); });
}

ThreadTeam::~ThreadTeam() {
  stopping_.store(true);
  wakes_.fetch_add(1);
  wakes_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

int64_t ThreadTeam::Claim() {
  uint64_t section = section_.load(std::memory_order_relaxed);
  while (HasTask(section)) {
    if (section_.compare_exchange_weak(section, section + 1, std::memory_order_acquire, std::memory_order_relaxed)) {
      return static_cast<int64_t>(section & 0xffffffffu);
    }
  }
  return -1;
}

void ThreadTeam::Run(int64_t tasks, Body body) {
  if (workers_.empty() || tasks < 2) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  for (int64_t first = 0; first < tasks; first += kMaxTasks)
    RunSection(first, std::min(kMaxTasks, tasks - first), body);
}

void ThreadTeam::RunSection(int64_t first, int64_t tasks, Body body) {
  body_ = &body;
  first_ = first;
  done_.store(0, std::memory_order_relaxed);
  section_.store(static_cast<uint64_t>(tasks) << kHalf);  // sequentially consistent with sleeping_: see Work
  if (sleeping_.load() > 0) {
    wakes_.fetch_add(1);
    wakes_.notify_all();
  }
  int64_t mine = 0;
  for (int64_t task = Claim(); task >= 0; task = Claim()) {
    body(first + task);
    ++mine;
  }
  // Others are at work on what is left, unless the system took a worker's core away in the middle of a task.
  for (int looks = 0; done_.load(std::memory_order_acquire) + mine < tasks; ++looks) {
    if (looks < 100 * kLooksPerCheck) {
      _mm_pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadTeam::Work() {
  while (!stopping_.load(std::memory_order_relaxed)) {
    const auto begin = std::chrono::steady_clock::now();
    bool worked = false;
    for (int looks = 1; !worked; ++looks) {
      for (int64_t task = Claim(); task >= 0; task = Claim()) {
        (*body_)(first_ + task);
        done_.fetch_add(1, std::memory_order_release);
        worked = true;
      }
      if (looks % kLooksPerCheck == 0 && std::chrono::steady_clock::now() - begin > kAwake) break;
      _mm_pause();
    }
    if (worked) continue;
    const uint32_t wakes = wakes_.load();
    sleeping_.fetch_add(1);
    // Either this look sees a section that has just begun, or its caller sees that this worker sleeps.
    if (!HasTask(section_.load()) && !stopping_.load()) wakes_.wait(wakes);
    sleeping_.fetch_sub(1);
  }
}

ScopedTeam::ScopedTeam(ThreadTeam* team) : before_(current_team) { current_team = team; }

ScopedTeam::~ScopedTeam() { current_team = before_; }

void ParallelTasks(int64_t tasks, absl::FunctionRef<void(int64_t task)> body) {
  if (tasks < 2) {
    if (tasks == 1) body(0);
  } else if (current_team != nullptr) {
    current_team->Run(tasks, body);
  } else {
    at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) body(task);
    });
  }
}

int ParallelThreads() { return current_team != nullptr ? current_team->size() : at::get_num_threads(); }

}  // namespace trimtab
