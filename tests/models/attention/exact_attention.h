// Attention written out in double, what the backends are tested against.
#ifndef TRIMTAB_TESTS_MODELS_ATTENTION_EXACT_ATTENTION_H_
#define TRIMTAB_TESTS_MODELS_ATTENTION_EXACT_ATTENTION_H_

#include <ATen/ATen.h>

#include <cmath>

#include "models/model_spec.h"

namespace trimtab {

// q [n, heads, d], k and v [m, kv_heads, d], visible [n, m] -> [n, heads, d].
inline at::Tensor ExactAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const at::Tensor& visible) {
  const int64_t group = q.size(1) / k.size(1);
  const at::Tensor keys = k.to(at::kDouble).repeat_interleave(group, 1).permute({1, 2, 0});
  const at::Tensor values = v.to(at::kDouble).repeat_interleave(group, 1).transpose(0, 1);
  at::Tensor scores = at::matmul(q.to(at::kDouble).transpose(0, 1), keys) / std::sqrt(static_cast<double>(q.size(2)));
  scores = scores.masked_fill(visible.logical_not(), -INFINITY);
  return at::matmul(at::softmax(scores, -1), values).transpose(0, 1);
}

// Which of context + rows positions each of the last `rows` sees; `window` as in AttentionRule.
inline at::Tensor Causal(int64_t rows, int64_t context, int64_t window = 0) {
  const at::Tensor causal = at::ones({rows, context + rows}, at::kBool).tril(context);
  return window > 0 ? causal.triu(context + 1 - window) : causal;
}

// The rule that ExactAttention computes for heads of `d` elements.
inline AttentionRule RuleFor(int64_t d, int64_t window = 0) {
  return {.scale = 1 / std::sqrt(static_cast<double>(d)), .window = window};
}

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_MODELS_ATTENTION_EXACT_ATTENTION_H_
