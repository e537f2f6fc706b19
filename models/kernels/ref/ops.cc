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

std::pair<at::Tensor, at::Tensor> AddRmsNorm(const at::Tensor& residual, const at::Tensor& delta,
                                             const at::Tensor& weight, double eps, at::ScalarType out_type) {
  const at::Tensor sum = residual + delta;
  return {sum, RmsNorm(sum, weight, eps, out_type)};
}

at::Tensor Rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const std::vector<at::Tensor> halves = x.to(at::kFloat).chunk(2, -1);
  const at::Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);
  return at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1).to(x.scalar_type());
}

at::Tensor GatedProduct(const at::Tensor& gate_up, Activation activation) {
  const std::vector<at::Tensor> parts = gate_up.to(at::kFloat).chunk(2, -1);
  const at::Tensor gate = activation == Activation::kSilu ? at::silu(parts[0]) : at::gelu(parts[0], "tanh");
  return (gate * parts[1]).to(gate_up.scalar_type());
}

}  // namespace trimtab::ref
