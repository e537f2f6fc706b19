#include "models/kernels/ops.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>

#include <vector>

namespace trimtab::ref {

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType out_type) {
  const at::Tensor scale = at::rsqrt(at::mean(x * x, at::IntArrayRef{-1}, /*keepdim=*/true) + eps);
  return (x * scale * weight).to(out_type);
}

at::Tensor Rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const std::vector<at::Tensor> halves = x.to(at::kFloat).chunk(2, -1);
  const at::Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);
  return at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1).to(x.scalar_type());
}

at::Tensor GatedProduct(const at::Tensor& gate, const at::Tensor& up, Activation activation) {
  const at::Tensor wide = gate.to(at::kFloat);
  const at::Tensor activated = activation == Activation::kSilu ? at::silu(wide) : at::gelu(wide, "tanh");
  return (activated * up.to(at::kFloat)).to(gate.scalar_type());
}

}  // namespace trimtab::ref
