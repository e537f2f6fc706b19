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

uint64_t Pack(int64_t next, int64_t end) { return static_cast<uint64_t>(end) << kHalf | static_cast<uint64_t>(next); }
int64_t Next(uint64_t left) { return static_cast<int64_t>(left & 0xffffffffu); }
int64_t End(uint64_t left) { return static_cast<int64_t>(left >> kHalf); }

}  // namespace

ThreadTeam::ThreadTeam(int size) : ranges_(static_cast<size_t>(std::max(size, 1))) {
  for (size_t i = 1; i < ranges_.size(); ++i) workers_.emplace_back([this, i] { Work(i); });
}

ThreadTeam::~ThreadTeam() {
  stopping_.store(true);
  wakes_.fetch_add(1);
  wakes_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

int64_t ThreadTeam::Claim(size_t self) {
  for (size_t i = 0; i < ranges_.size(); ++i) {
    std::atomic<uint64_t>& range = ranges_[(self + i) % ranges_.size()].left;
    uint64_t left = range.load(std::memory_order_relaxed);
    while (Next(left) < End(left)) {
      const bool mine = i == 0;
      const uint64_t rest = mine ? Pack(Next(left) + 1, End(left)) : Pack(Next(left), End(left) - 1);
      if (range.compare_exchange_weak(left, rest, std::memory_order_acquire, std::memory_order_relaxed)) {
        return mine ? Next(left) : End(left) - 1;
      }
    }
  }
  return -1;
}

bool ThreadTeam::HasTask() const {
  return std::any_of(ranges_.begin(), ranges_.end(), [](const Range& range) {
    const uint64_t left = range.left.load();
    return Next(left) < End(left);
  });
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
  const auto size = static_cast<int64_t>(ranges_.size());
  for (int64_t i = size - 1; i >= 0; --i) {
    ranges_[static_cast<size_t>(i)].left.store(Pack(i * tasks / size, (i + 1) * tasks / size));  // ordered: see Work
  }
  if (sleeping_.load() > 0) {
    wakes_.fetch_add(1);
    wakes_.notify_all();
  }
  int64_t mine = 0;
  for (int64_t task = Claim(0); task >= 0; task = Claim(0)) {
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

void ThreadTeam::Work(size_t self) {
  while (!stopping_.load(std::memory_order_relaxed)) {
    const auto begin = std::chrono::steady_clock::now();
    bool worked = false;
    for (int looks = 1; !worked; ++looks) {
      for (int64_t task = Claim(self); task >= 0; task = Claim(self)) {
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
    if (!HasTask() && !stopping_.load()) wakes_.wait(wakes);
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
