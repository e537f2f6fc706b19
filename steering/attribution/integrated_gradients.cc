#include "steering/attribution/integrated_gradients.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "server/base/status_macros.h"
#include "steering/attribution/quadrature.h"
#include "steering/attribution/token_mask.h"

namespace trimtab {
namespace {

constexpr size_t kPointsPerCall = 16;
constexpr double kMinDifference = 0.5;  // nats

std::vector<double> ToVector(const at::Tensor& values) {  // [C]
  const at::Tensor flat = values.to(at::kDouble).contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

// <g_i(alpha), x_i - b_i> for every candidate i, by the path's point; computed once per point.
class PathProducts {
 public:
  PathProducts(const at::Tensor& input, const at::Tensor& baseline, const std::vector<int64_t>& candidates,
               const GradientFunction& gradients)
      : input_(input), baseline_(baseline), candidates_(at::tensor(candidates)), gradients_(gradients) {
    difference_ = (input.to(at::kFloat) - baseline.to(at::kFloat)).index_select(0, candidates_);
  }

  absl::Status Compute(const std::vector<double>& points) {
    std::vector<double> missing;
    for (double point : points) {
      if (!products_.contains(point)) missing.push_back(point);
    }
    for (size_t begin = 0; begin < missing.size(); begin += kPointsPerCall) {
      const size_t end = std::min(begin + kPointsPerCall, missing.size());
      const at::Tensor alpha = at::tensor(std::vector<double>(missing.begin() + begin, missing.begin() + end))
                                   .to(at::kFloat)
                                   .view({-1, 1, 1});
      const at::Tensor x = input_.to(at::kFloat), b = baseline_.to(at::kFloat);
      const at::Tensor path = (b + alpha * (x - b)).to(input_.scalar_type());
      TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor gradient, gradients_(path));
      const at::Tensor dots =
          (gradient.index_select(1, candidates_).to(at::kDouble) * difference_.to(at::kDouble)).sum(-1);
      for (size_t i = begin; i < end; ++i) products_[missing[i]] = ToVector(dots[static_cast<int64_t>(i - begin)]);
    }
    return absl::OkStatus();
  }

  std::vector<double> Integrate(const QuadratureRule& rule) const {
    std::vector<double> scores(static_cast<size_t>(candidates_.numel()), 0.0);
    for (size_t p = 0; p < rule.points.size(); ++p) {
      const std::vector<double>& products = products_.at(rule.points[p]);
      for (size_t i = 0; i < scores.size(); ++i) scores[i] += rule.weights[p] * products[i];
    }
    return scores;
  }

  int computed() const { return static_cast<int>(products_.size()); }

 private:
  const at::Tensor input_, baseline_;  // [L, D]
  const at::Tensor candidates_;        // [C] int64
  at::Tensor difference_;              // [C, D] float32
  const GradientFunction& gradients_;
  std::map<double, std::vector<double>> products_;
};

}  // namespace

absl::StatusOr<IntegratedGradientsResult> IntegratedGradients(const at::Tensor& input, const at::Tensor& baseline,
                                                              const std::vector<int64_t>& candidates,
                                                              double input_value, double baseline_value,
                                                              const IntegratedGradientsOptions& options,
                                                              const GradientFunction& gradients) {
  PathProducts path(input, baseline, candidates, gradients);
  const double difference = input_value - baseline_value;
  IntegratedGradientsResult result;
  const auto evaluate = [&](const QuadratureRule& rule) -> absl::Status {
    TRIMTAB_RETURN_IF_ERROR(path.Compute(rule.points));
    result.scores = path.Integrate(rule);
    double sum = 0;
    for (double score : result.scores) sum += score;
    result.completeness_error = std::abs(sum - difference) / std::max(std::abs(difference), kMinDifference);
    if (!std::isfinite(result.completeness_error)) {
      return absl::InternalError("integrated gradients are not finite on this path");
    }
    result.points = path.computed();
    return absl::OkStatus();
  };

  if (options.quadrature != QuadratureKind::kFejer2Adaptive) {
    TRIMTAB_RETURN_IF_ERROR(evaluate(options.quadrature == QuadratureKind::kGaussLegendre ? GaussLegendre(options.steps)
                                                                                          : Midpoint(options.steps)));
    result.converged = result.completeness_error <= options.tolerance;
    return result;
  }
  // The rule of max_points is the finest; each level takes every second point of the one above it, so points are
  // exactly the same numbers and their gradients are computed once.
  const QuadratureRule finest = Fejer2(options.max_points);
  MaskedSides before;
  for (int n = 15; n <= options.max_points; n = 2 * n + 1) {
    QuadratureRule rule = Fejer2(n);
    const int stride = (options.max_points + 1) / (n + 1);
    for (int j = 0; j < n; ++j) rule.points[j] = finest.points[(j + 1) * stride - 1];
    TRIMTAB_RETURN_IF_ERROR(evaluate(rule));
    const MaskedSides sides = SelectSides(result.scores, candidates, options.k, options.rho);
    if (n > 15 || options.max_points == 15) {
      const double overlap = n > 15 ? SelectionOverlap(sides, before) : 1;
      result.converged = result.completeness_error <= options.tolerance && overlap >= options.min_overlap;
      if (result.converged) break;
    }
    before = sides;
  }
  return result;
}

std::vector<double> GradientTimesDifference(const at::Tensor& gradient, const at::Tensor& input,
                                            const at::Tensor& baseline, const std::vector<int64_t>& candidates) {
  const at::Tensor products =
      (gradient.to(at::kDouble) * (input.to(at::kDouble) - baseline.to(at::kDouble))).sum(-1);  // [L]
  return ToVector(products.index_select(0, at::tensor(candidates)));
}

}  // namespace trimtab
