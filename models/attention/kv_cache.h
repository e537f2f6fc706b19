// The keys and values of all sequences of one engine, in blocks. Owned by the engine thread.
#ifndef TRIMTAB_MODELS_ATTENTION_KV_CACHE_H_
#define TRIMTAB_MODELS_ATTENTION_KV_CACHE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/model_spec.h"

namespace trimtab {

// One layer of a cache. The layout is what the attention kernels multiply without rearranging: one vector holds the
// same elements of many keys, or many elements of the same values. Elements are packed in pairs (bfloat16) or alone
// (float32), `pack` together:
//   keys   [blocks, kv_heads, depth / pack, slots, pack]
//   values [blocks, kv_heads, slots / pack, width, pack]
// with zeros in the elements behind head_dim.
struct KvCacheLayer {
  void *keys, *values;
  bool narrow;   // bfloat16, else float32
  int64_t pack;  // 2 for bfloat16, 1 for float32
  int64_t kv_heads, head_dim;
  int64_t block_size;    // positions in a block
  int64_t slots;         // block_size rounded up to whole packs
  int64_t depth, width;  // head_dim rounded up to whole packs, and to whole vectors

  int64_t key_size() const { return depth * slots; }    // elements of a block's keys of one head
  int64_t value_size() const { return slots * width; }  // the same of its values
  // Stores the key and value [head_dim] of one head at slot `slot` = block * block_size + offset, rounded to the
  // cache's type. Different slots and heads may be written from different threads.
  void Write(int64_t slot, int64_t head, const float* key, const float* value) const;
};

// Storage only; which block belongs to whom is KvBlockManager's business.
class KvCache {
 public:
  static constexpr int64_t kWidthMultiple = 16;  // of KvCacheLayer::width

  // Room for the blocks of all layers in `dtype`, float32 or bfloat16.
  KvCache(const ModelSpec& spec, int64_t num_blocks, int64_t block_size, at::ScalarType dtype);

  const KvCacheLayer& layer(int64_t layer) const { return layers_[static_cast<size_t>(layer)]; }
  at::ScalarType dtype() const { return dtype_; }
  int64_t num_blocks() const { return num_blocks_; }
  int64_t block_size() const { return block_size_; }

 private:
  int64_t num_blocks_, block_size_;
  at::ScalarType dtype_;
  std::vector<at::Tensor> storage_;
  std::vector<KvCacheLayer> layers_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_ATTENTION_KV_CACHE_H_
