// What this machine can do at most, as JSON: memory read bandwidth and the rate of bfloat16 matrix products, both with
// all cores (or THREADS). machine_limits [THREADS]. Best of several rounds: a limit, not a mean.
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <latch>
#include <memory>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

namespace {

constexpr size_t kBytes = size_t{1} << 30;  // of all threads together: far beyond any cache
constexpr int kRounds = 7;

double Seconds(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Sum of words [0, count): independent accumulators, so that loads and not additions are waited for. count is a
// multiple of 32.
uint64_t Sum(const uint64_t* words, size_t count) {
  uint64_t lanes[32] = {};
  for (size_t i = 0; i < count; i += 32) {
    for (size_t lane = 0; lane < 32; ++lane) lanes[lane] += words[i + lane];
  }
  uint64_t sum = 0;
  for (const uint64_t lane : lanes) sum += lane;
  return sum;
}

// Bytes per second that `threads` threads read together, each its own part of the memory.
double ReadBandwidth(int threads) {
  const size_t part = kBytes / sizeof(uint64_t) / static_cast<size_t>(threads) / 32 * 32;
  std::vector<std::unique_ptr<uint64_t[]>> memory(static_cast<size_t>(threads));
  std::vector<uint64_t> sums(static_cast<size_t>(threads));
  for (auto& words : memory) {
    words = std::make_unique_for_overwrite<uint64_t[]>(part);
    for (size_t i = 0; i < part; ++i) words[i] = i;  // every page is there before it is timed
  }
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::latch ready(threads + 1);
    std::vector<std::thread> team;
    for (size_t t = 0; t < memory.size(); ++t) {
      team.emplace_back([&, t] {
        ready.arrive_and_wait();
        sums[t] = Sum(memory[t].get(), part);
      });
    }
    ready.arrive_and_wait();
    const auto begin = std::chrono::steady_clock::now();
    for (std::thread& thread : team) thread.join();
    const double rate = static_cast<double>(part * sizeof(uint64_t)) * threads / Seconds(begin);
    best = std::max(best, rate);
  }
  for (const uint64_t sum : sums) {
    if (sum != part * (part - 1) / 2) std::abort();  // also keeps the reads from being optimised away
  }
  return best;
}

// Operations per second of [m, k] x [n, k]^T in bfloat16 with prepacked weights: what PyTorch's own fastest path gives.
double GemmRate(int64_t m, int64_t n, int64_t k) {
  const auto reorder = c10::Dispatcher::singleton()
                           .findSchemaOrThrow("mkldnn::_reorder_linear_weight", "")
                           .typed<at::Tensor(const at::Tensor&, std::optional<c10::SymInt>)>();
  using Linear = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                            c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  const auto linear = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Linear>();
  const at::Tensor x = at::randn({m, k}).to(at::kBFloat16);
  const at::Tensor weight = reorder.call(at::randn({n, k}).to(at::kBFloat16), c10::SymInt(m));
  const c10::List<std::optional<at::Scalar>> no_scalars;
  const double work = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    int calls = 0;
    do {
      linear.call(x, weight, std::nullopt, "none", no_scalars, "");
      ++calls;
    } while (Seconds(begin) < 0.2);
    best = std::max(best, calls * work / Seconds(begin));
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads =
      argc > 1 ? std::max(1, std::atoi(argv[1])) : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  at::set_num_threads(threads);
  const c10::InferenceMode guard;
  const double bandwidth = ReadBandwidth(threads);
  double gemm = 0;
  for (const int64_t m : {256, 512, 1024}) {
    gemm = std::max({gemm, GemmRate(m, 2048, 2048), GemmRate(m, 4096, 1024), GemmRate(m, 1024, 4096)});
  }
  std::printf("{\"threads\": %d, \"read_bytes_per_second\": %.4g, \"bf16_gemm_flops\": %.4g}\n", threads, bandwidth,
              gemm);
  return 0;
}
