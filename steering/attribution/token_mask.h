// From signed scores to the two sets of tokens that are masked (steering.md A4). No torch. Any thread.
#ifndef TRIMTAB_STEERING_ATTRIBUTION_TOKEN_MASK_H_
#define TRIMTAB_STEERING_ATTRIBUTION_TOKEN_MASK_H_

#include <cstdint>
#include <vector>

namespace trimtab {

// Positions in the prompt, ascending. Disjoint, as their scores have different signs.
struct MaskedSides {
  std::vector<int64_t> positive;  // S+: they speak most for the preferred answer
  std::vector<int64_t> negative;  // S-: they speak most for the dispreferred answer

  bool operator==(const MaskedSides&) const = default;
};

// The positions of the largest scores above 0 and of the smallest below 0; on each side at most `k` and at most
// ceil(rho * candidates). Ties: the earlier position first. `candidates` ascend; `scores` belong to them.
MaskedSides SelectSides(const std::vector<double>& scores, const std::vector<int64_t>& candidates, int k, double rho);

// Share of the larger selection's positions that both hold, 0 to 1; both sides count. 1 when both are empty.
double SelectionOverlap(const MaskedSides& a, const MaskedSides& b);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_ATTRIBUTION_TOKEN_MASK_H_
