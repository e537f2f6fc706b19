// The keys and values of all sequences of one engine, in blocks. Owned by the engine thread.
#ifndef TRIMTAB_MODELS_ATTENTION_KV_CACHE_H_
#define TRIMTAB_MODELS_ATTENTION_KV_CACHE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/model_spec.h"

namespace trimtab {

// Storage only; which block belongs to whom is KvBlockManager's business.
class KvCache {
 public:
  // Allocates 2 * layers tensors [num_blocks, num_kv_heads, block_size, head_dim] of `dtype`.
  KvCache(const ModelSpec& spec, int64_t num_blocks, int64_t block_size, at::ScalarType dtype);

  const at::Tensor& keys(int64_t layer) const { return keys_[layer]; }
  const at::Tensor& values(int64_t layer) const { return values_[layer]; }
  int64_t num_blocks() const { return num_blocks_; }
  int64_t block_size() const { return block_size_; }

 private:
  int64_t num_blocks_, block_size_;
  std::vector<at::Tensor> keys_, values_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_ATTENTION_KV_CACHE_H_
