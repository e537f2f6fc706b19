#include "models/attention/kv_cache.h"

#include <ATen/ops/zeros.h>

namespace trimtab {

KvCache::KvCache(const ModelSpec& spec, int64_t num_blocks, int64_t block_size, at::ScalarType dtype)
    : num_blocks_(num_blocks), block_size_(block_size) {
  for (int64_t layer = 0; layer < spec.num_layers(); ++layer) {
    keys_.push_back(at::zeros({num_blocks, spec.num_kv_heads, block_size, spec.head_dim}, dtype));
    values_.push_back(at::zeros({num_blocks, spec.num_kv_heads, block_size, spec.head_dim}, dtype));
  }
}

}  // namespace trimtab
