#include "models/attention/attention_backend.h"

#include "models/kernels/ops.h"

namespace trimtab {

void AttentionBackend::AttendRotated(int64_t layer, const AttentionRule& rule, const at::Tensor& qkv,
                                     const at::Tensor& cos, const at::Tensor& sin, const TokenLayout& layout,
                                     at::Tensor& out) {
  const int64_t heads = out.size(1), kv_heads = (qkv.size(1) - heads) / 2;
  const at::Tensor rotated = Rope(qkv.narrow(1, 0, heads + kv_heads), cos, sin);  // [T, heads + kv_heads, head_dim]
  out.copy_(Attend(layer, rule, rotated.narrow(1, 0, heads), rotated.narrow(1, heads, kv_heads),
                   qkv.narrow(1, heads + kv_heads, kv_heads), layout));
}

}  // namespace trimtab
