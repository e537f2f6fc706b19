// Occlusion: what masking each token alone does to F; and random scores, the control. Any thread.
#ifndef TRIMTAB_STEERING_ATTRIBUTION_OCCLUSION_H_
#define TRIMTAB_STEERING_ATTRIBUTION_OCCLUSION_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"

namespace trimtab {

// F with each of the sets of prompt positions masked, in order.
using MaskedValueFunction =
    std::function<absl::StatusOr<std::vector<double>>(const std::vector<std::vector<int64_t>>& masked)>;

struct OcclusionResult {
  std::vector<double> scores;  // F(x) - F(x without the candidate)
  double value = 0;            // F(x)
};

// Calls `values` once, with the empty set first.
absl::StatusOr<OcclusionResult> Occlusion(const std::vector<int64_t>& candidates, const MaskedValueFunction& values);

// `count` independent standard normal scores that depend on `seed` and `stream` only.
std::vector<double> RandomScores(size_t count, uint64_t seed, uint64_t stream);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_ATTRIBUTION_OCCLUSION_H_
