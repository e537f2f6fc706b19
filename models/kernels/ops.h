// Operations between the matrix products on whole tensors: compositions of ATen operators that carry gradients
// (`ref::`), and what inference tests its row kernels (row_buffer.h) against. Functional: no argument is written. A
// row's result never depends on the other rows.
#ifndef TRIMTAB_MODELS_KERNELS_OPS_H_
#define TRIMTAB_MODELS_KERNELS_OPS_H_

#include <ATen/core/Tensor.h>

#include "models/model_spec.h"

namespace trimtab {

// True when autograd records and `x` takes part.
bool NeedsGradient(const at::Tensor& x);

// Rotates the halves of each head: x [T, H, d], cos and sin float32 [T, d/2] -> [T, H, d] (Su et al. 2021, in the
// half-split layout of Hugging Face models). x may be a strided view with a dense last dimension. Differentiable when
// gradients are wanted, else a fused kernel.
at::Tensor Rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

namespace ref {
// x [T, D], weight [D], both float32 -> x / sqrt(mean(x^2) + eps) * weight, rounded to `out_type` (float32 or
// bfloat16).
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType out_type);
at::Tensor Rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);
// activation(gate) * up [T, F], computed in float32, in gate's type.
at::Tensor GatedProduct(const at::Tensor& gate, const at::Tensor& up, Activation activation);
}  // namespace ref

namespace cpu {
at::Tensor Rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);
}  // namespace cpu

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_KERNELS_OPS_H_
