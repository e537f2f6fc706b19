// Attention as a parameter of the forward pass: dense and differentiable for gradients, paged for serving.
#ifndef TRIMTAB_MODELS_ATTENTION_ATTENTION_BACKEND_H_
#define TRIMTAB_MODELS_ATTENTION_ATTENTION_BACKEND_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "models/token_layout.h"

namespace trimtab {

// One forward pass at a time. Paged implementations write K and V of the rows into their cache first.
class AttentionBackend {
 public:
  virtual ~AttentionBackend() = default;
  // q: [num_tokens, num_heads, head_dim]; k, v: [num_tokens, num_kv_heads, head_dim], rotary embedding applied.
  // Scale is 1/sqrt(head_dim). Returns [num_tokens, num_heads, head_dim] in q's type.
  virtual at::Tensor Attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const TokenLayout& layout) = 0;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_ATTENTION_ATTENTION_BACKEND_H_
