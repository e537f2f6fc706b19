// Integrated gradients along the straight path from a baseline to a prompt's embeddings (steering.md A3).
#ifndef TRIMTAB_STEERING_ATTRIBUTION_INTEGRATED_GRADIENTS_H_
#define TRIMTAB_STEERING_ATTRIBUTION_INTEGRATED_GRADIENTS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"

namespace trimtab {

enum class QuadratureKind { kFejer2Adaptive, kGaussLegendre, kMidpoint };

struct IntegratedGradientsOptions {
  QuadratureKind quadrature = QuadratureKind::kFejer2Adaptive;
  int steps = 20;            // points of the rules that are not adaptive
  int max_points = 127;      // of the adaptive one: 15, 31, 63 or 127
  double tolerance = 0.05;   // relative completeness error at which the adaptive rule may stop
  double min_overlap = 0.8;  // and the least agreement of the selected tokens with the level before
  int k = 10;                // selection whose stability is looked at: as in SelectSides
  double rho = 0.3;
};

struct IntegratedGradientsResult {
  std::vector<double> scores;     // of the candidates; they sum to F(input) - F(baseline) up to the error
  double completeness_error = 0;  // |sum - difference| / max(|difference|, 0.5 nat)
  int points = 0;                 // gradients that were computed
  bool converged = false;         // the stop rule was met (for fixed rules: the error alone)
};

// Gradients of F at `embeddings` [B, L, D]: float32 [B, L, D].
using GradientFunction = std::function<absl::StatusOr<at::Tensor>(const at::Tensor& embeddings)>;

// `input` and `baseline` are [L, D] and equal outside `candidates`; `input_value` and `baseline_value` are F there.
// `gradients` is asked for a few points at a time. Sums are kept in double.
absl::StatusOr<IntegratedGradientsResult> IntegratedGradients(const at::Tensor& input, const at::Tensor& baseline,
                                                              const std::vector<int64_t>& candidates,
                                                              double input_value, double baseline_value,
                                                              const IntegratedGradientsOptions& options,
                                                              const GradientFunction& gradients);

// First-order form: <gradient, input - baseline> at the candidates. All tensors [L, D].
std::vector<double> GradientTimesDifference(const at::Tensor& gradient, const at::Tensor& input,
                                            const at::Tensor& baseline, const std::vector<int64_t>& candidates);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_ATTRIBUTION_INTEGRATED_GRADIENTS_H_
