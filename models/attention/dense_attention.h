// Attention within packed sequences, differentiable: for gradients, capture and scoring in jobs.
#ifndef TRIMTAB_MODELS_ATTENTION_DENSE_ATTENTION_H_
#define TRIMTAB_MODELS_ATTENTION_DENSE_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/attention/attention_backend.h"

namespace trimtab {

// Sequences of the same shape (prompt length and branch lengths) that stand side by side run as one batch. One forward
// pass at a time; a plan of the layout is kept between the layers of a pass.
class DenseAttention final : public AttentionBackend {
 public:
  at::Tensor Attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const TokenLayout& layout) override;

 private:
  // `count` neighbours of the same shape from row `begin` on, each `length` rows.
  struct Run {
    int64_t begin = 0, length = 0, count = 0;
    at::Tensor mask;  // [length, length] additive, in q's type; undefined: plain causal
  };
  bool IsPlanned(const TokenLayout& layout, at::ScalarType dtype) const;
  void Plan(const TokenLayout& layout, at::ScalarType dtype);

  std::vector<SequenceSpan> planned_;  // what runs_ was made for
  at::ScalarType dtype_ = at::kFloat;
  std::vector<Run> runs_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_ATTENTION_DENSE_ATTENTION_H_
