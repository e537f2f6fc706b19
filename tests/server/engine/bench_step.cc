// Microseconds of a step that are not the model's: taking messages, planning, committing, metrics, showing the state.
// bench_step; a line per number of decoding sequences. A tiny model runs, so caches are kinder than with a real one.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "models/testing/tiny_model.h"
#include "server/base/clock.h"
#include "server/engine/engine.h"
#include "server/engine/engine_metrics.h"
#include "server/metrics/metrics.h"

namespace trimtab {
namespace {

// Passes everything on and keeps the time between the model's parts of two steps.
class Stopwatch final : public EngineMetrics {
 public:
  explicit Stopwatch(EngineMetrics& metrics) : metrics_(metrics) {}

  void OnStep(const StepObservation& step) override {
    metrics_.OnStep(step);
    const auto now = std::chrono::steady_clock::now();
    const double model = absl::ToDoubleMicroseconds(step.duration);
    if (step.prefill_tokens == 0 && decoding_ == step.decode_tokens) {
      others.push_back(std::chrono::duration<double, std::micro>(now - last_).count() - model);
    }
    decoding_ = step.decode_tokens;
    last_ = now;
  }
  void OnQueues(const QueueObservation& queues) override { metrics_.OnQueues(queues); }
  void OnInterTokenLatency(bool steered, absl::Duration gap) override { metrics_.OnInterTokenLatency(steered, gap); }
  void OnRequestEnd(const RequestObservation& request) override { metrics_.OnRequestEnd(request); }
  void OnPrefixLookup(int64_t queried, int64_t hit) override { metrics_.OnPrefixLookup(queried, hit); }
  void OnPreemption() override { metrics_.OnPreemption(); }
  void OnStall() override { metrics_.OnStall(); }
  void OnBank(int64_t hits, int64_t misses, int64_t evictions, int64_t uploaded_bytes, int64_t bytes) override {
    metrics_.OnBank(hits, misses, evictions, uploaded_bytes, bytes);
  }

  std::vector<double> others;  // us, by decoding step

 private:
  EngineMetrics& metrics_;
  int64_t decoding_ = 0;
  std::chrono::steady_clock::time_point last_;
};

class CountingSink final : public RequestSink {
 public:
  explicit CountingSink(absl::BlockingCounter& left) : left_(left) {}
  void OnToken(OutputToken) override {}
  void OnEnd(RequestEnd) override { left_.DecrementCount(); }

 private:
  absl::BlockingCounter& left_;
};

void Measure(int64_t sequences) {
  const RealClock clock;
  Metrics metrics(MetricsConfig{}, clock);
  const std::shared_ptr<ModelMetrics> model_metrics = metrics.AddModel({});
  Stopwatch stopwatch(*model_metrics);
  const auto model = MakeTinyLoadedModel({.num_layers = 1});
  EngineConfig config;
  config.kv_cache_bytes = int64_t{16} << 20;
  auto engine = Engine::Create(model, config, clock, &stopwatch);
  if (!engine.ok()) {
    std::fprintf(stderr, "%s\n", engine.status().ToString().c_str());
    std::exit(1);
  }
  absl::BlockingCounter left(static_cast<int>(sequences));
  for (int64_t i = 0; i < sequences; ++i) {
    auto request = std::make_unique<Request>();
    request->id = absl::StrCat("request-number-", i);
    request->tokens = {static_cast<TokenId>(1 + i % 50), 2, 3};
    request->prompt_length = 3;
    request->sampling.max_output_tokens = 400;
    request->deadline = absl::Now() + absl::Hours(1);
    request->sink = std::make_shared<CountingSink>(left);
    if (absl::Status status = (*engine)->Submit(std::move(request)); !status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      std::exit(1);
    }
  }
  left.Wait();
  engine->reset();
  std::sort(stopwatch.others.begin(), stopwatch.others.end());
  if (stopwatch.others.empty()) return;
  std::printf("%3lld sequences: %6.1f us a step beside the model (p90 %.1f, %zu steps)\n",
              static_cast<long long>(sequences), stopwatch.others[stopwatch.others.size() / 2],
              stopwatch.others[stopwatch.others.size() * 9 / 10], stopwatch.others.size());
}

}  // namespace
}  // namespace trimtab

int main() {
  for (const int64_t sequences : {1, 16, 64}) trimtab::Measure(sequences);
}
