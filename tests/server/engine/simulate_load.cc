// How long first tokens take under loads of short and long prompts, through the real scheduler on a simulated clock:
// simulate_load. A step takes 5 ms and .5 ms per row, about as SmolLM2 does on two cores; arrivals are Poisson with a
// fixed seed, so the figures are the scheduler's alone and the same on every machine.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/engine/scheduler.h"
#include "tests/server/engine/fake_runner.h"

namespace trimtab {
namespace {

constexpr absl::Time kStart = absl::FromUnixSeconds(1'000'000'000);
constexpr absl::Duration kStepTime = absl::Milliseconds(5), kRowTime = absl::Microseconds(500);
constexpr absl::Duration kLoadTime = absl::Seconds(600);

// Requests of one kind.
struct Stream {
  const char* name = "";
  double rate = 0;  // per second
  int64_t prompt = 0, output = 0;
  const char* tenant = "";
};

// What became of a stream's requests, in milliseconds.
struct Latencies {
  std::vector<double> first, gaps;
};

class LatencySink final : public RequestSink {
 public:
  LatencySink(absl::Time arrival, const absl::Time& now, Latencies& latencies)
      : arrival_(arrival), now_(now), latencies_(latencies) {}
  void OnToken(OutputToken) override {
    const bool first = last_ == absl::InfinitePast();
    (first ? latencies_.first : latencies_.gaps)
        .push_back(absl::ToDoubleMilliseconds(now_ - (first ? arrival_ : last_)));
    last_ = now_;
  }
  void OnEnd(RequestEnd) override {}

 private:
  const absl::Time arrival_;
  const absl::Time& now_;
  Latencies& latencies_;
  absl::Time last_ = absl::InfinitePast();
};

double Quantile(std::vector<double>& values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

void Simulate(const char* name, const std::vector<Stream>& streams) {
  struct Arrival {
    absl::Time time;
    size_t stream;
  };
  std::vector<Arrival> arrivals;
  for (size_t i = 0; i < streams.size(); ++i) {
    std::mt19937 random(static_cast<uint32_t>(i));
    std::exponential_distribution<double> gap(streams[i].rate);
    for (absl::Time t = kStart; t < kStart + kLoadTime; t += absl::Seconds(gap(random))) arrivals.push_back({t, i});
  }
  std::sort(arrivals.begin(), arrivals.end(), [](const Arrival& a, const Arrival& b) { return a.time < b.time; });

  SchedulerConfig config;
  config.block_size = 16;
  config.num_blocks = 4000;
  config.max_context = 8192;
  config.max_step_time = absl::Milliseconds(50);
  FakeSlots slots(kMaxSelections);
  Scheduler scheduler(config, slots, nullptr, nullptr);
  std::vector<Latencies> latencies(streams.size());
  absl::Time now = kStart;
  for (size_t next = 0; next < arrivals.size() || !scheduler.empty();) {
    if (scheduler.empty()) now = std::max(now, arrivals[next].time);
    for (; next < arrivals.size() && arrivals[next].time <= now; ++next) {
      const Stream& stream = streams[arrivals[next].stream];
      auto request = std::make_unique<Request>();
      request->id = absl::StrCat(next);
      request->tokens.assign(static_cast<size_t>(stream.prompt), static_cast<TokenId>(next));
      request->prompt_length = stream.prompt;
      request->sampling.max_output_tokens = stream.output;
      request->tenant = stream.tenant;
      request->arrival = arrivals[next].time;
      request->sink = std::make_shared<LatencySink>(request->arrival, now, latencies[arrivals[next].stream]);
      scheduler.Submit(std::move(request), now);
    }
    const StepPlan plan = scheduler.Plan(now);
    StepResult result;
    result.items.resize(plan.items.size());
    for (size_t i = 0; i < plan.items.size(); ++i) {
      if (plan.items[i].logits_rows() > 0) result.items[i].token = OutputToken{};
    }
    now += kStepTime + kRowTime * plan.num_tokens();
    scheduler.Commit(plan, std::move(result), now);
  }
  for (size_t i = 0; i < streams.size(); ++i) {
    std::printf("%-32s %-6s %6.0f %8.0f %8.0f %8.0f %8.0f\n", i == 0 ? name : "", streams[i].name,
                static_cast<double>(latencies[i].first.size()), Quantile(latencies[i].first, .5),
                Quantile(latencies[i].first, .99), Quantile(latencies[i].gaps, .5), Quantile(latencies[i].gaps, .99));
  }
}

}  // namespace
}  // namespace trimtab

int main() {
  std::printf("%-32s %-6s %6s %8s %8s %8s %8s   (milliseconds)\n", "load", "", "n", "first", "p99", "gap", "p99");
  const auto ordinary = [](double rate, const char* tenant = "") {
    return trimtab::Stream{.name = "short", .rate = rate, .prompt = 100, .output = 48, .tenant = tenant};
  };
  const auto longs = [](double rate, const char* tenant = "") {
    return trimtab::Stream{.name = "long", .rate = rate, .prompt = 2000, .output = 48, .tenant = tenant};
  };
  trimtab::Simulate("3 short/s", {ordinary(3)});
  trimtab::Simulate("3 short/s, a long in 5 s", {ordinary(3), longs(.2)});
  trimtab::Simulate("3 short/s, a long in 3 s", {ordinary(3), longs(.33)});
  trimtab::Simulate("6 short/s, a long in 4 s", {ordinary(6), longs(.25)});
  trimtab::Simulate("the same, of two tenants", {ordinary(6, "a"), longs(.25, "b")});
  trimtab::Simulate("long prompts alone, one in 2 s", {longs(.5)});
}
