// A dense layer y = x W^T + b. Const after construction; any thread.
#ifndef TRIMTAB_MODELS_LAYERS_LINEAR_H_
#define TRIMTAB_MODELS_LAYERS_LINEAR_H_

#include <ATen/core/Tensor.h>

#include <memory>

#include "models/kernels/packed_matrix.h"

namespace trimtab {

// Keeps the plain weight, which gradients use, and a packed copy, which inference uses where the processor has the
// kernels for it.
class Linear {
 public:
  Linear() = default;
  // weight [N, K], float32 or bfloat16; bias [N] or undefined.
  explicit Linear(at::Tensor weight, at::Tensor bias = {});

  // x [T, K] in the weight's type -> [T, N] in that type.
  at::Tensor operator()(const at::Tensor& x) const { return Apply(x, weight_.scalar_type()); }
  // The same, but the float32 sums as they are. With a bfloat16 weight and gradients they are rounded to bfloat16 once.
  at::Tensor ToFloat(const at::Tensor& x) const { return Apply(x, at::kFloat); }

  const at::Tensor& weight() const { return weight_; }

 private:
  at::Tensor Apply(const at::Tensor& x, at::ScalarType out_type) const;

  at::Tensor weight_, bias_;
  std::shared_ptr<const PackedMatrix> packed_;  // null: at::linear
};

// Whether this CPU multiplies bfloat16 natively (AVX512-BF16 or AMX).
bool CpuHasNativeBFloat16();

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_LAYERS_LINEAR_H_
