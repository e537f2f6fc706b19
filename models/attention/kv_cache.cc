#include "models/attention/kv_cache.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "models/attention/head_row.h"

namespace trimtab {
namespace {

constexpr uintptr_t kHugePage = uintptr_t{2} << 20;

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Zeros, in huge pages where the system gives them: attention jumps from block to block.
at::Tensor Zeros(int64_t elements, at::ScalarType dtype) {
  at::Tensor tensor = at::empty({elements}, dtype);
  const uintptr_t begin = reinterpret_cast<uintptr_t>(tensor.data_ptr());
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (begin + tensor.nbytes()) / kHugePage * kHugePage;
  if (end > first) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);  // no harm if refused
  return tensor.zero_();
}

// Element i of `from` to to[i / pack * stride + i % pack].
template <int kPack, typename T>
void Scatter(const T* from, int64_t count, int64_t stride, T* to) {
  for (int64_t i = 0; i + kPack <= count; i += kPack) std::memcpy(to + i / kPack * stride, from + i, kPack * sizeof(T));
  for (int64_t i = count / kPack * kPack; i < count; ++i) to[i / kPack * stride + i % kPack] = from[i];
}

}  // namespace

void KvCacheLayer::Write(int64_t slot, int64_t head, const float* key, const float* value) const {
  const int64_t block = slot / block_size * kv_heads + head, offset = slot % block_size;
  const int64_t key_at = block * key_size() + offset * pack;
  const int64_t value_at = block * value_size() + offset / pack * width * pack + offset % pack;
  if (!narrow) {
    Scatter<1>(key, head_dim, slots, static_cast<float*>(keys) + key_at);
    std::memcpy(static_cast<float*>(values) + value_at, value, static_cast<size_t>(head_dim) * sizeof(float));
    return;
  }
  constexpr int64_t kChunk = 64;
  c10::BFloat16 rounded[kChunk];
  for (int64_t begin = 0; begin < head_dim; begin += kChunk) {
    const int64_t count = std::min(kChunk, head_dim - begin);
    ConvertRow(key + begin, count, 1, rounded);
    Scatter<2>(rounded, count, slots * 2, static_cast<c10::BFloat16*>(keys) + key_at + begin * slots);
    ConvertRow(value + begin, count, 1, rounded);
    Scatter<1>(rounded, count, 2, static_cast<c10::BFloat16*>(values) + value_at + begin * 2);
  }
}

KvCache::KvCache(const ModelSpec& spec, int64_t num_blocks, int64_t block_size, at::ScalarType dtype)
    : num_blocks_(num_blocks), block_size_(block_size), dtype_(dtype) {
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16, "a KV cache holds float32 or bfloat16, not ", dtype);
  const int64_t pack = dtype == at::kBFloat16 ? 2 : 1;
  KvCacheLayer layer{.keys = nullptr,
                     .values = nullptr,
                     .narrow = dtype == at::kBFloat16,
                     .pack = pack,
                     .kv_heads = spec.num_kv_heads,
                     .head_dim = spec.head_dim,
                     .block_size = block_size,
                     .slots = RoundUp(block_size, pack),
                     .depth = RoundUp(spec.head_dim, pack),
                     .width = RoundUp(spec.head_dim, kWidthMultiple)};
  for (int64_t i = 0; i < spec.num_layers(); ++i) {
    storage_.push_back(Zeros(num_blocks * spec.num_kv_heads * layer.key_size(), dtype));
    layer.keys = storage_.back().data_ptr();
    storage_.push_back(Zeros(num_blocks * spec.num_kv_heads * layer.value_size(), dtype));
    layer.values = storage_.back().data_ptr();
    layers_.push_back(layer);
  }
}

}  // namespace trimtab
