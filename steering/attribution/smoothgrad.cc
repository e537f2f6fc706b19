#include "steering/attribution/smoothgrad.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "server/base/status_macros.h"
#include "steering/attribution/random.h"

namespace trimtab {
namespace {

constexpr int kSamplesPerCall = 16;

}  // namespace

absl::StatusOr<std::vector<double>> SmoothGrad(const at::Tensor& input, const at::Tensor& baseline,
                                               const std::vector<int64_t>& candidates, const SmoothGradOptions& options,
                                               const GradientFunction& gradients) {
  const at::Tensor x = input.to(at::kFloat);
  const double deviation = options.noise * x.to(at::kDouble).square().mean().sqrt().item<double>();
  Random random(options.seed, options.stream);
  at::Tensor sum = at::zeros_like(x, at::kDouble);  // [L, D]
  for (int done = 0; done < options.samples;) {
    const int count = std::min(kSamplesPerCall, options.samples - done);
    at::Tensor noise = at::empty({count, x.size(0), x.size(1)}, at::kFloat);
    float* values = noise.data_ptr<float>();
    for (int64_t i = 0; i < noise.numel(); ++i) values[i] = static_cast<float>(deviation * random.Normal());
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor gradient, gradients((x + noise).to(input.scalar_type())));
    sum += gradient.to(at::kDouble).sum(0);
    done += count;
  }
  return GradientTimesDifference(sum / options.samples, input, baseline, candidates);
}

}  // namespace trimtab
