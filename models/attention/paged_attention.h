// Attention of serving: keys and values live in cache blocks, shared between sequences. CPU, float32 and bfloat16.
#ifndef TRIMTAB_MODELS_ATTENTION_PAGED_ATTENTION_H_
#define TRIMTAB_MODELS_ATTENTION_PAGED_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "models/attention/attention_backend.h"
#include "models/attention/kv_cache.h"

namespace trimtab {

// Writes the rows' K and V into their slots, then lets each row see all cached positions of its sequence up to its own.
// Softmax and sums in float32. A row's result does not depend on what else is in the step. Not differentiable. One
// forward pass at a time, on the thread that owns the cache.
class PagedAttention final : public AttentionBackend {
 public:
  explicit PagedAttention(KvCache& cache) : cache_(cache) {}

  at::Tensor Attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const TokenLayout& layout) override;

 private:
  KvCache& cache_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_ATTENTION_PAGED_ATTENTION_H_
