// The operations between the matrix products, and the one place that chooses how to run them: when gradients are
// wanted, a composition of ATen operators (`ref::`, differentiable); else a fused CPU kernel. Functional: no argument
// is written. A row's result never depends on the other rows.
#ifndef TRIMTAB_MODELS_KERNELS_OPS_H_
#define TRIMTAB_MODELS_KERNELS_OPS_H_

#include <ATen/core/Tensor.h>

#include <utility>

#include "models/model_spec.h"

namespace trimtab {

// True when autograd records and `x` takes part.
bool NeedsGradient(const at::Tensor& x);

// x [T, D], weight [D], both float32 -> x / sqrt(mean(x^2) + eps) * weight, rounded to `out_type` (float32 or
// bfloat16).
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType out_type);
// {residual + delta, RmsNorm of it}: residual, delta [T, D] float32. The same bits as the two steps apart.
std::pair<at::Tensor, at::Tensor> AddRmsNorm(const at::Tensor& residual, const at::Tensor& delta,
                                             const at::Tensor& weight, double eps, at::ScalarType out_type);
// Rotates the halves of each head: x [T, H, d], cos and sin float32 [T, d/2] -> [T, H, d] (Su et al. 2021, in the
// half-split layout of Hugging Face models). x may be a strided view with a dense last dimension.
at::Tensor Rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);
// gate_up [T, 2F] -> activation(gate) * up [T, F], in its type.
at::Tensor GatedProduct(const at::Tensor& gate_up, Activation activation);

// The slow, differentiable forms; what the fast ones are tested against.
namespace ref {
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType out_type);
std::pair<at::Tensor, at::Tensor> AddRmsNorm(const at::Tensor& residual, const at::Tensor& delta,
                                             const at::Tensor& weight, double eps, at::ScalarType out_type);
at::Tensor Rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);
at::Tensor GatedProduct(const at::Tensor& gate_up, Activation activation);
}  // namespace ref

// The fused kernels: float32 and bfloat16, CPU.
namespace cpu {
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType out_type);
std::pair<at::Tensor, at::Tensor> AddRmsNorm(const at::Tensor& residual, const at::Tensor& delta,
                                             const at::Tensor& weight, double eps, at::ScalarType out_type);
at::Tensor Rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);
at::Tensor GatedProduct(const at::Tensor& gate_up, Activation activation);
}  // namespace cpu

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_KERNELS_OPS_H_
