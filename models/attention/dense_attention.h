// Attention within packed sequences, differentiable: for gradients, capture and scoring in jobs.
#ifndef TRIMTAB_MODELS_ATTENTION_DENSE_ATTENTION_H_
#define TRIMTAB_MODELS_ATTENTION_DENSE_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <vector>

#include "models/attention/attention_backend.h"

namespace trimtab {

// Sequences of the same shape (prompt length and branch lengths) that stand side by side run as one batch. One forward
// pass at a time; a plan of the layout is kept between the layers of a pass.
class DenseAttention final : public AttentionBackend {
 public:
  at::Tensor Attend(int64_t layer, const AttentionRule& rule, const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& v, const TokenLayout& layout) override;

 private:
  // `count` neighbours of the same shape from row `begin` on, each `length` rows.
  struct Run {
    int64_t begin = 0, length = 0, count = 0;
    std::vector<int64_t> branches;
    int64_t positions = 0;                // of the longest path: prompt and branch
    std::map<int64_t, at::Tensor> masks;  // by window: [length, length] additive, in q's type; undefined: plain causal
  };
  const at::Tensor& MaskOf(Run& run, int64_t window) const;
  bool IsPlanned(const TokenLayout& layout, at::ScalarType dtype) const;
  void Plan(const TokenLayout& layout, at::ScalarType dtype);

  std::vector<SequenceSpan> planned_;  // what runs_ was made for
  at::ScalarType dtype_ = at::kFloat;
  std::vector<Run> runs_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_ATTENTION_DENSE_ATTENTION_H_
