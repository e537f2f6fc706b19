// Microseconds per token of the sampler on one core: bench_sampler [VOCABULARY]. A line per way of sampling; "peaked"
// rows look like a model that knows what comes next, "flat" ones like a model that does not.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "server/engine/sampler.h"

namespace trimtab {
namespace {

constexpr int kRows = 16;  // different ones, so that caches and branches do not learn a single row
constexpr int kRepeats = 60;

std::vector<std::vector<float>> MakeRows(int64_t vocab, bool peaked) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, peaked ? 1.5f : 2.2f);
  std::vector<std::vector<float>> rows(kRows, std::vector<float>(vocab));
  for (std::vector<float>& row : rows) {
    for (float& logit : row) logit = normal(random);
    if (!peaked) continue;
    for (int i = 0; i < 20; ++i) row[random() % row.size()] = 8 + static_cast<float>(i) / 3;
  }
  return rows;
}

void Measure(const char* name, const std::vector<std::vector<float>>& rows, const SamplingParams& params) {
  Sampler sampler(static_cast<int64_t>(rows[0].size()));
  const std::vector<TokenId> seen(300, 7);
  std::vector<double> times;
  int64_t sum = 0;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const auto begin = std::chrono::steady_clock::now();
    for (const std::vector<float>& row : rows) sum += sampler.Sample(row, params, seen, repeat)->token;
    const std::chrono::duration<double, std::micro> elapsed = std::chrono::steady_clock::now() - begin;
    times.push_back(elapsed.count() / kRows);
  }
  std::sort(times.begin(), times.end());
  std::printf("%-34s %8.1f us  (best %.1f, checksum %lld)\n", name, times[kRepeats / 2], times[0],
              static_cast<long long>(sum));
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) {
  using trimtab::SamplingParams;
  const int64_t vocab = argc > 1 ? std::atoll(argv[1]) : 49152;
  for (const bool peaked : {true, false}) {
    const auto rows = trimtab::MakeRows(vocab, peaked);
    const std::string kind = peaked ? "peaked, " : "flat, ";
    const auto measure = [&](const std::string& name, const SamplingParams& params) {
      trimtab::Measure((kind + name).c_str(), rows, params);
    };
    measure("greedy", {});
    measure("greedy, logprob", {.logprobs = 0});
    measure("greedy, 5 alternatives", {.logprobs = 5});
    measure("temperature 1", {.temperature = 1});
    measure("temperature 1, top_p .9", {.temperature = 1, .top_p = 0.9f});
    measure("temperature 1, top_p .9, logprob", {.temperature = 1, .top_p = 0.9f, .logprobs = 0});
    measure("temperature 1, top_k 40", {.temperature = 1, .top_k = 40});
    measure("top_k 40, top_p .9, min_p .05", {.temperature = 1, .top_p = 0.9f, .top_k = 40, .min_p = 0.05f});
    measure("temperature 1, min_p .05", {.temperature = 1, .min_p = 0.05f});
    measure("greedy, penalty 1.1", {.repetition_penalty = 1.1f});
  }
}
