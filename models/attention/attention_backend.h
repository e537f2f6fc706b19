// Attention as a parameter of the forward pass: dense and differentiable for gradients, paged for serving.
#ifndef TRIMTAB_MODELS_ATTENTION_ATTENTION_BACKEND_H_
#define TRIMTAB_MODELS_ATTENTION_ATTENTION_BACKEND_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "models/model_spec.h"
#include "models/token_layout.h"

namespace trimtab {

// One forward pass at a time. Paged implementations write K and V of the rows into their cache first.
class AttentionBackend {
 public:
  virtual ~AttentionBackend() = default;
  // q: [num_tokens, num_heads, head_dim]; k, v: [num_tokens, num_kv_heads, head_dim], rotary embedding applied.
  // Returns [num_tokens, num_heads, head_dim] in q's type.
  virtual at::Tensor Attend(int64_t layer, const AttentionRule& rule, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const TokenLayout& layout) = 0;

  // The same from what the projection leaves, for inference: qkv [num_tokens, num_heads + 2 * num_kv_heads, head_dim],
  // rotary embedding not applied, float32 or bfloat16; cos, sin: float32 [num_tokens, head_dim / 2]. Writes `out`, a
  // contiguous [num_tokens, num_heads, head_dim], float32 or bfloat16 whatever qkv's type. The default rotates and
  // calls Attend.
  // Callers give qkv in the model's own type unless the backend says that it takes float32 as well.
  virtual bool TakesFloat32() const { return false; }
  virtual void AttendRotated(int64_t layer, const AttentionRule& rule, const at::Tensor& qkv, const at::Tensor& cos,
                             const at::Tensor& sin, const TokenLayout& layout, at::Tensor& out);
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_ATTENTION_ATTENTION_BACKEND_H_
