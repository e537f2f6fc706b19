// Tokens per second of decoding: bench_engine MODEL [TOKENS]. Prints a line per batch size and way of steering; arms
// have equal lengths and run in turn, so that the ratio of two of them is the cost of steering.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/time/clock.h"
#include "models/loaded_model.h"
#include "server/base/clock.h"
#include "server/engine/engine.h"

namespace trimtab {
namespace {

constexpr int64_t kPromptTokens = 32;
constexpr int kRounds = 5;

class CountingSink final : public RequestSink {
 public:
  explicit CountingSink(absl::BlockingCounter& left) : left_(left) {}
  void OnToken(OutputToken) override {}
  void OnEnd(RequestEnd end) override {
    decode = end.timing.decode;
    left_.DecrementCount();
  }
  absl::Duration decode;

 private:
  absl::BlockingCounter& left_;
};

std::shared_ptr<const SteeringVector> RandomVector(const LoadedModel& model, uint32_t seed, bool all_layers) {
  const ModelSpec& spec = model.model->spec();
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  SteeringVectorSpec vector;
  vector.model_fingerprint = model.fingerprint;
  vector.method = "random";
  vector.hidden_size = spec.hidden_size;
  for (int64_t layer = 0; layer < spec.num_layers(); ++layer) {
    if (!all_layers && layer != spec.num_layers() / 2) continue;
    LayerDirection direction;
    direction.layer = layer;
    double square = 0;
    for (int64_t i = 0; i < spec.hidden_size; ++i) {
      direction.direction.push_back(normal(random));
      square += direction.direction.back() * direction.direction.back();
    }
    for (float& x : direction.direction) x = static_cast<float>(x / std::sqrt(square));
    vector.layers.push_back(std::move(direction));
  }
  return *SteeringVector::Create(std::move(vector));
}

// Output tokens per second from the first token on. Each request has its own vector and its own strength.
double Run(Engine& engine, const std::vector<std::shared_ptr<const SteeringVector>>& vectors, int batch,
           int64_t tokens) {
  static int next = 0;
  absl::BlockingCounter left(batch);
  std::vector<std::shared_ptr<CountingSink>> sinks;
  for (int i = 0; i < batch; ++i) {
    auto request = std::make_unique<Request>();
    request->id = std::to_string(next++);
    std::mt19937 random(next);  // no prefix is shared
    for (int64_t j = 0; j < kPromptTokens; ++j) request->tokens.push_back(static_cast<TokenId>(random() % 10000));
    request->prompt_length = kPromptTokens;
    request->sampling.max_output_tokens = tokens;
    if (!vectors.empty()) {
      request->plan = SteeringPlan({{.vector = vectors[i],
                                     .objective = "bench",
                                     .revision = 1,
                                     .strength = 0.01f * static_cast<float>(1 + i),
                                     .apply_to = ApplyTo::kAll}});
    }
    sinks.push_back(std::make_shared<CountingSink>(left));
    request->sink = sinks.back();
    if (absl::Status status = engine.Submit(std::move(request)); !status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      std::exit(1);
    }
  }
  left.Wait();
  absl::Duration longest;
  for (const auto& sink : sinks) longest = std::max(longest, sink->decode);
  return static_cast<double>(batch) * static_cast<double>(tokens - 1) / absl::ToDoubleSeconds(longest);
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_engine MODEL [TOKENS]\n");
    return 2;
  }
  const int64_t tokens = argc > 2 ? std::atoll(argv[2]) : 96;
  const auto model = LoadModel("bench", argv[1], {});
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", model.status().ToString().c_str());
    return 1;
  }
  const RealClock clock;
  const auto engine = Engine::Create(*model, {}, clock, nullptr);
  if (!engine.ok()) {
    std::fprintf(stderr, "%s\n", engine.status().ToString().c_str());
    return 1;
  }
  std::vector<std::vector<std::shared_ptr<const SteeringVector>>> arms(3);
  for (uint32_t i = 0; i < 16; ++i) {
    arms[1].push_back(RandomVector(**model, i, /*all_layers=*/false));
    arms[2].push_back(RandomVector(**model, 100 + i, /*all_layers=*/true));
  }
  const char* names[] = {"unsteered", "own vector and strength each, one layer", "the same, all layers"};
  for (const int batch : {1, 16}) {
    std::vector<std::vector<double>> rates(arms.size());
    for (int round = 0; round < kRounds; ++round) {
      for (size_t arm = 0; arm < arms.size(); ++arm) rates[arm].push_back(Run(**engine, arms[arm], batch, tokens));
    }
    double unsteered = 0;
    for (size_t arm = 0; arm < arms.size(); ++arm) {
      std::sort(rates[arm].begin(), rates[arm].end());
      const double median = rates[arm][kRounds / 2];
      if (arm == 0) unsteered = median;
      std::printf("batch %2d  %-42s %8.1f tokens/s  %.3f of unsteered (min %.1f, max %.1f)\n", batch, names[arm],
                  median, median / unsteered, rates[arm].front(), rates[arm].back());
    }
  }
  return 0;
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) { return trimtab::Main(argc, argv); }
