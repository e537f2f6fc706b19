#include "models/attention/kv_cache.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <tuple>

namespace trimtab {
namespace {

template <typename T>
float KeyAt(const KvCacheLayer& cache, int64_t block, int64_t head, int64_t offset, int64_t i) {
  const T* keys = static_cast<const T*>(cache.keys) + (block * cache.kv_heads + head) * cache.key_size();
  return static_cast<float>(keys[(i / cache.pack * cache.slots + offset) * cache.pack + i % cache.pack]);
}

template <typename T>
float ValueAt(const KvCacheLayer& cache, int64_t block, int64_t head, int64_t offset, int64_t i) {
  const T* values = static_cast<const T*>(cache.values) + (block * cache.kv_heads + head) * cache.value_size();
  return static_cast<float>(values[(offset / cache.pack * cache.width + i) * cache.pack + offset % cache.pack]);
}

// Type, head_dim, block_size.
class KvCacheTest : public testing::TestWithParam<std::tuple<at::ScalarType, int64_t, int64_t>> {};

TEST_P(KvCacheTest, EveryElementIsWhereTheLayoutSays) {
  const auto [dtype, head_dim, block_size] = GetParam();
  constexpr int64_t kBlocks = 3, kHeads = 2;
  ModelSpec spec{.num_heads = kHeads, .num_kv_heads = kHeads, .head_dim = head_dim};
  spec.layers.resize(2);
  const KvCache cache(spec, kBlocks, block_size, dtype);
  const KvCacheLayer& layer = cache.layer(1);
  EXPECT_EQ(layer.width % KvCache::kWidthMultiple, 0);
  at::manual_seed(1);
  const at::Tensor keys = at::randn({kBlocks * block_size, kHeads, head_dim}), values = at::randn_like(keys);
  for (int64_t slot = 0; slot < kBlocks * block_size; ++slot) {
    for (int64_t head = 0; head < kHeads; ++head) {
      layer.Write(slot, head, keys[slot][head].const_data_ptr<float>(), values[slot][head].const_data_ptr<float>());
    }
  }
  const at::Tensor stored_keys = keys.to(dtype).to(at::kFloat), stored_values = values.to(dtype).to(at::kFloat);
  const auto key = stored_keys.accessor<float, 3>(), value = stored_values.accessor<float, 3>();
  const bool narrow = dtype == at::kBFloat16;
  for (int64_t slot = 0; slot < kBlocks * block_size; ++slot) {
    const int64_t block = slot / block_size, offset = slot % block_size;
    for (int64_t head = 0; head < kHeads; ++head) {
      for (int64_t i = 0; i < layer.width; ++i) {
        const float v = narrow ? ValueAt<c10::BFloat16>(layer, block, head, offset, i)
                               : ValueAt<float>(layer, block, head, offset, i);
        ASSERT_EQ(v, i < head_dim ? value[slot][head][i] : 0) << slot << ' ' << head << ' ' << i;
        if (i >= head_dim) continue;
        const float k =
            narrow ? KeyAt<c10::BFloat16>(layer, block, head, offset, i) : KeyAt<float>(layer, block, head, offset, i);
        ASSERT_EQ(k, key[slot][head][i]) << slot << ' ' << head << ' ' << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Grid, KvCacheTest,
                         testing::Combine(testing::Values(at::kFloat, at::kBFloat16), testing::Values(20, 64, 144),
                                          testing::Values(5, 16)));

TEST(KvCacheTypesTest, TakesOnlyWhatTheKernelsRead) {
  ModelSpec spec{.num_heads = 1, .num_kv_heads = 1, .head_dim = 8};
  spec.layers.resize(1);
  EXPECT_THROW(KvCache(spec, 1, 16, at::kDouble), c10::Error);
}

}  // namespace
}  // namespace trimtab
