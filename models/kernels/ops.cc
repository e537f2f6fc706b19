#include "models/kernels/ops.h"

#include <ATen/core/grad_mode.h>

namespace trimtab {

bool NeedsGradient(const at::Tensor& x) { return at::GradMode::is_enabled() && x.requires_grad(); }

at::Tensor Rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return NeedsGradient(x) ? ref::Rope(x, cos, sin) : cpu::Rope(x, cos, sin);
}

}  // namespace trimtab
