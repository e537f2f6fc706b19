// SmoothGrad (Smilkov et al., arXiv 1706.03825; steering.md A3): the gradient averaged over noise around the prompt.
#ifndef TRIMTAB_STEERING_ATTRIBUTION_SMOOTHGRAD_H_
#define TRIMTAB_STEERING_ATTRIBUTION_SMOOTHGRAD_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "steering/attribution/integrated_gradients.h"

namespace trimtab {

struct SmoothGradOptions {
  int samples = 20;
  double noise = 0.1;  // standard deviation, as a share of the root mean square of the input
  uint64_t seed = 0;   // the noise depends on seed and stream only
  uint64_t stream = 0;
};

// <mean gradient, input - baseline> at the candidates. `input` and `baseline` are [L, D] and equal outside
// `candidates`.
absl::StatusOr<std::vector<double>> SmoothGrad(const at::Tensor& input, const at::Tensor& baseline,
                                               const std::vector<int64_t>& candidates, const SmoothGradOptions& options,
                                               const GradientFunction& gradients);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_ATTRIBUTION_SMOOTHGRAD_H_
