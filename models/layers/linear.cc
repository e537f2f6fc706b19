#include "models/layers/linear.h"

#include <ATen/ops/linear.h>

#include <optional>
#include <utility>

#include "models/kernels/ops.h"

namespace trimtab {

bool CpuHasNativeBFloat16() {
  return __builtin_cpu_supports("avx512bf16") != 0 && PackedMatrix::Supports(at::kBFloat16);
}

Linear::Linear(at::Tensor weight, at::Tensor bias) : weight_(std::move(weight)), bias_(std::move(bias)) {
  const at::ScalarType dtype = weight_.scalar_type();
  const bool in_pairs = dtype == at::kFloat || weight_.size(1) % 2 == 0;
  if (in_pairs && PackedMatrix::Supports(dtype)) packed_ = std::make_shared<const PackedMatrix>(weight_);
}

at::Tensor Linear::Apply(const at::Tensor& x, at::ScalarType out_type) const {
  if (packed_ != nullptr && !NeedsGradient(x)) return packed_->Multiply(x, bias_, out_type);
  return at::linear(x, weight_, bias_.defined() ? std::optional(bias_) : std::nullopt).to(out_type);
}

}  // namespace trimtab
