// Microseconds that planning and committing a step take, without the model: bench_scheduler. A line per number of
// running sequences; half of them are steered, some more requests wait.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/engine/scheduler.h"
#include "tests/server/engine/fake_runner.h"

namespace trimtab {
namespace {

constexpr int64_t kSteps = 2000;

struct CountingSink final : RequestSink {
  void OnToken(OutputToken) override { ++tokens; }
  void OnEnd(RequestEnd) override {}
  int64_t tokens = 0;
};

double Microseconds(std::chrono::steady_clock::duration elapsed) {
  return std::chrono::duration<double, std::micro>(elapsed).count();
}

void Measure(int64_t running, int64_t waiting) {
  SchedulerConfig config;
  config.block_size = 16;
  config.num_blocks = 200 * running;
  config.max_running_requests = running;
  config.max_context = 3000;
  config.max_step_time = absl::Milliseconds(50);
  FakeSlots slots(16);
  Scheduler scheduler(config, slots, nullptr, nullptr);
  absl::Time now = absl::FromUnixSeconds(1'000'000'000);
  for (int64_t i = 0; i < running + waiting; ++i) {
    auto request = std::make_unique<Request>();
    request->id = absl::StrCat("request-number-", i);
    request->tokens = {static_cast<TokenId>(i), 1, 2, 3, 4, 5, 6, 7};
    request->prompt_length = 8;
    request->sampling.max_output_tokens = 100000;
    request->sampling.end_tokens = {2};
    request->deadline = now + absl::Hours(1);
    if (i % 2 == 0) request->plan = FakePlan({{FakeVector(static_cast<double>(i % 8)), 0.1f}}, ApplyTo::kAll);
    request->sink = std::make_shared<CountingSink>();
    scheduler.Submit(std::move(request), now);
  }
  std::vector<double> plan_times, commit_times;
  for (int64_t step = 0; step < kSteps; ++step) {
    const auto begin = std::chrono::steady_clock::now();
    const StepPlan plan = scheduler.Plan(now);
    const auto planned = std::chrono::steady_clock::now();
    StepResult result;
    result.items.resize(plan.items.size());
    for (size_t i = 0; i < plan.items.size(); ++i) {
      result.items[i].token = OutputToken{.token = 7, .logprob = -1};
    }
    result.row_dose.assign(static_cast<size_t>(plan.num_tokens()), 0.1f);
    now += absl::Milliseconds(10);
    const auto executed = std::chrono::steady_clock::now();
    scheduler.Commit(plan, std::move(result), now);
    const auto committed = std::chrono::steady_clock::now();
    plan_times.push_back(Microseconds(planned - begin));
    commit_times.push_back(Microseconds(committed - executed));
  }
  const auto quantile = [](std::vector<double>& times, double q) {
    std::sort(times.begin(), times.end());
    return times[static_cast<size_t>(q * static_cast<double>(times.size() - 1))];
  };
  std::printf("%3lld running, %3lld waiting: plan %6.1f us (p99 %6.1f), commit %6.1f us (p99 %6.1f)\n",
              static_cast<long long>(running), static_cast<long long>(waiting), quantile(plan_times, .5),
              quantile(plan_times, .99), quantile(commit_times, .5), quantile(commit_times, .99));
}

}  // namespace
}  // namespace trimtab

int main() {
  for (const int64_t running : {1, 16, 64}) {
    for (const int64_t waiting : {0, 256}) trimtab::Measure(running, waiting);
  }
}
