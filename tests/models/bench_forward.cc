// Speed of the forward pass alone, without an engine: bench_forward MODEL [float32|bfloat16|file [BATCH [REPEATS]]],
// the best of some repeats of 64 steps after prompts of 32 tokens. For a quiet machine, with OMP_WAIT_POLICY=PASSIVE
// GOMP_SPINCOUNT=0.
#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "models/kernels/thread_team.h"
#include "models/loaded_model.h"
#include "models/testing/paged_run.h"

namespace trimtab {
namespace {

template <typename Body>
double Seconds(const Body& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::vector<PagedRun::Chunk> Prompts(int64_t count, int64_t length) {
  std::vector<PagedRun::Chunk> chunks;
  for (int64_t i = 0; i < count; ++i) {
    chunks.push_back({i, {}});
    for (int64_t j = 0; j < length; ++j) chunks.back().tokens.push_back(100 + 7 * j + i);
  }
  return chunks;
}

int Main(int argc, char** argv) {
  LoadOptions options;
  if (argc > 2) {
    const std::string_view name = argv[2];
    options.precision = name == "float32"    ? LoadOptions::Precision::kFloat32
                        : name == "bfloat16" ? LoadOptions::Precision::kBFloat16
                                             : LoadOptions::Precision::kFile;
  }
  const auto loaded = LoadModel("bench", argc > 1 ? argv[1] : "", options);
  if (!loaded.ok()) {
    std::fprintf(stderr, "%s\n", loaded.status().ToString().c_str());
    return 1;
  }
  const CausalModel& model = *(*loaded)->model;
  ThreadTeam team(ParallelThreads());
  const ScopedTeam scope(&team);
  double best = 0;
  const int64_t only = argc > 3 ? std::atoll(argv[3]) : 0;
  const int64_t repeats = argc > 4 ? std::atoll(argv[4]) : 5;
  for (int repeat = 0; repeat < (only > 0 ? 0 : repeats); ++repeat) {
    PagedRun run(model, 40, 16);
    best = std::max(best, 512 / Seconds([&] { run.LastLogits(Prompts(1, 512)); }));
  }
  if (only == 0) std::printf("prefill of 512: %.0f tokens/s\n", best);
  for (const int64_t batch : {1, 4, 8, 16, 32}) {
    if (only > 0 && batch != only) continue;
    best = 0;
    for (int repeat = 0; repeat < repeats; ++repeat) {
      PagedRun run(model, 6 * batch, 16);
      std::vector<PagedRun::Chunk> chunks = Prompts(batch, 32);
      run.LastLogits(chunks);
      for (PagedRun::Chunk& chunk : chunks) chunk.tokens = {77};
      const double seconds = Seconds([&] {
        for (int step = 0; step < 64; ++step) run.LastLogits(chunks);
      });
      best = std::max(best, static_cast<double>(batch) * 64 / seconds);
    }
    std::printf("decode of %ld: %.1f tokens/s\n", static_cast<long>(batch), best);
  }
  return 0;
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) { return trimtab::Main(argc, argv); }
