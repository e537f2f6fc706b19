#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/diag_embed.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "steering/methods/head_probes.h"

namespace trimtab {
namespace {

constexpr int kMaxSteps = 100;
constexpr int kMaxHalvings = 30;
constexpr double kConverged = 1e-10;  // of the step, by the largest coefficient
constexpr double kRidge = 1e-10;      // keeps the unpenalised bias' curvature above zero

// [H, N, head_dim + 1] double, the last column ones.
at::Tensor WithOnes(const at::Tensor& values) {
  return at::cat({values.to(at::kDouble), at::ones({values.size(0), values.size(1), 1}, at::kDouble)}, 2);
}

}  // namespace

LogisticProbes FitLogisticProbes(const HeadSamples& training, double inverse_regularization) {
  at::NoGradGuard no_grad;
  const at::Tensor x = WithOnes(training.values);        // [H, N, D + 1]
  const at::Tensor y = training.labels.to(at::kDouble);  // [N]
  const at::Tensor signs = 2 * y - 1;                    // [N]
  const int64_t heads = x.size(0), size = x.size(2);
  at::Tensor penalty = at::ones({size}, at::kDouble);  // of each coefficient's square; not of the bias
  penalty[size - 1] = 0;
  at::Tensor coefficients = at::zeros({heads, size}, at::kDouble);
  const auto margins = [&](const at::Tensor& c) { return at::bmm(x, c.unsqueeze(2)).squeeze(2); };  // [H, N]
  const auto objective = [&](const at::Tensor& c) {                                                 // [H]
    return (c * c * penalty).sum(1) / 2 + inverse_regularization * at::softplus(-signs * margins(c)).sum(1);
  };
  at::Tensor value = objective(coefficients);
  for (int step = 0; step < kMaxSteps; ++step) {
    const at::Tensor p = at::sigmoid(margins(coefficients));  // [H, N]
    const at::Tensor gradient =
        coefficients * penalty + inverse_regularization * at::bmm((p - y).unsqueeze(1), x).squeeze(1);
    const at::Tensor curvature = inverse_regularization * p * (1 - p);
    const at::Tensor hessian =
        at::bmm((x * curvature.unsqueeze(2)).transpose(1, 2), x) + at::diag_embed(penalty + kRidge).unsqueeze(0);
    at::Tensor change = -at::linalg_solve(hessian, gradient.unsqueeze(2)).squeeze(2);  // [H, D + 1]
    // Heads whose objective would rise take half the step, and half of that.
    at::Tensor next = coefficients + change, next_value = objective(next);
    for (int half = 0; half < kMaxHalvings && (next_value > value + kConverged).any().item<bool>(); ++half) {
      change = at::where((next_value > value + kConverged).unsqueeze(1), change / 2, change);
      next = coefficients + change;
      next_value = objective(next);
    }
    coefficients = next;
    value = next_value;
    if (change.abs().max().item<double>() < kConverged) break;
  }
  return {.weights = coefficients.narrow(1, 0, size - 1), .biases = coefficients.select(1, size - 1)};
}

ProbeScores Score(const LogisticProbes& probes, const HeadSamples& unseen) {
  at::NoGradGuard no_grad;
  const at::Tensor signs = 2 * unseen.labels.to(at::kDouble) - 1;
  const at::Tensor margins = at::bmm(unseen.values.to(at::kDouble), probes.weights.unsqueeze(2)).squeeze(2) +
                             probes.biases.unsqueeze(1);  // [H, N]
  const at::Tensor right = (margins > 0) == (signs > 0);
  return {.accuracy = right.to(at::kDouble).mean(1), .cross_entropy = at::softplus(-signs * margins).mean(1)};
}

}  // namespace trimtab
