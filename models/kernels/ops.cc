#include "models/kernels/ops.h"

#include <ATen/core/grad_mode.h>

namespace trimtab {

bool NeedsGradient(const at::Tensor& x) { return at::GradMode::is_enabled() && x.requires_grad(); }

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType out_type) {
  return NeedsGradient(x) ? ref::RmsNorm(x, weight, eps, out_type) : cpu::RmsNorm(x, weight, eps, out_type);
}

std::pair<at::Tensor, at::Tensor> AddRmsNorm(const at::Tensor& residual, const at::Tensor& delta,
                                             const at::Tensor& weight, double eps, at::ScalarType out_type) {
  return NeedsGradient(residual) || NeedsGradient(delta) ? ref::AddRmsNorm(residual, delta, weight, eps, out_type)
                                                         : cpu::AddRmsNorm(residual, delta, weight, eps, out_type);
}

at::Tensor Rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return NeedsGradient(x) ? ref::Rope(x, cos, sin) : cpu::Rope(x, cos, sin);
}

at::Tensor GatedProduct(const at::Tensor& gate_up, Activation activation) {
  return NeedsGradient(gate_up) ? ref::GatedProduct(gate_up, activation) : cpu::GatedProduct(gate_up, activation);
}

}  // namespace trimtab
