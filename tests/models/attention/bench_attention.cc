// Speed of paged attention alone, in the shape of SmolLM2-135M, from projection to result: for a quiet machine, with
// OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0. Microseconds per layer, best of many steps; "pass": one step after the
// other through all layers, so that the cache comes from memory as it does in a model; "hot": one layer again and
// again.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <vector>

#include "models/attention/kv_cache.h"
#include "models/attention/paged_attention.h"
#include "models/kernels/thread_team.h"
#include "tests/models/attention/exact_attention.h"

namespace trimtab {
namespace {

constexpr int64_t kHeads = 9, kKvHeads = 3, kHeadDim = 64, kLayers = 30, kBlockSize = 16;

struct Times {
  double pass, hot;
};

Times Measure(AttentionBackend& attention, const TokenLayout& layout) {
  const int64_t rows = layout.num_tokens;
  const at::Tensor qkv = at::randn({rows, kHeads + 2 * kKvHeads, kHeadDim});
  const at::Tensor angles = at::rand({rows, kHeadDim / 2}), cos = at::cos(angles), sin = at::sin(angles);
  at::Tensor out = at::empty({rows, kHeads, kHeadDim}, at::kBFloat16);
  // Microseconds per layer of the fastest of many steps over `layers` layers, for about half a second.
  const auto best = [&](int64_t layers) {
    const auto begin = std::chrono::steady_clock::now();
    double fastest = 1e9;
    for (int step = 0; step < 5 || std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(500); ++step) {
      const auto start = std::chrono::steady_clock::now();
      for (int64_t i = 0; i < kLayers; ++i)
        attention.AttendRotated(i % layers, RuleFor(kHeadDim), qkv, cos, sin, layout, out);
      const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
      fastest = std::min(fastest, took.count() / kLayers);
    }
    return fastest;
  };
  return {.pass = best(kLayers), .hot = best(1)};
}

void Compare(const char* name, int64_t batch, int64_t length, int64_t context) {
  ModelSpec spec{.num_heads = kHeads, .num_kv_heads = kKvHeads, .head_dim = kHeadDim};
  spec.layers.resize(kLayers);
  const int64_t blocks = (context + length + kBlockSize - 1) / kBlockSize;
  KvCache cache(spec, batch * blocks, kBlockSize, at::kBFloat16);
  std::vector<SequenceSpan> spans(static_cast<size_t>(batch));
  for (int64_t i = 0; i < batch; ++i) {
    spans[i].length = length;
    spans[i].context = context;
    // Neighbours in a sequence are not neighbours in the cache.
    for (int64_t j = 0; j < blocks; ++j)
      spans[i].block_table.push_back(static_cast<int32_t>((j * 7 % blocks) * batch + i));
  }
  const TokenLayout layout = TokenLayout::Paged(std::move(spans), kBlockSize);
  std::printf("%-8s batch %2ld, rows %3ld, context %4ld:", name, static_cast<long>(batch), static_cast<long>(length),
              static_cast<long>(context));
  for (const InstructionSet instructions : {InstructionSet::kAvx2, BestInstructionSet()}) {
    PagedAttention attention(cache, instructions);
    const Times times = Measure(attention, layout);
    std::printf("  %s pass %8.1f hot %8.1f", instructions == InstructionSet::kAvx2 ? "AVX2" : "AVX-512", times.pass,
                times.hot);
  }
  std::printf("\n");
}

int Main() {
  at::manual_seed(1);
  ThreadTeam team(at::get_num_threads());
  const ScopedTeam scope(&team);
  std::printf("%d threads, microseconds per layer\n", team.size());
  for (const int64_t context : {64, 256, 512, 4096}) {
    for (const int64_t batch : {1, 16}) Compare("decode", batch, 1, context - 1);
  }
  Compare("prefill", 1, 512, 0);
  Compare("prefill", 1, 512, 3584);
  return 0;
}

}  // namespace
}  // namespace trimtab

int main() { return trimtab::Main(); }
