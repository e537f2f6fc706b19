#include "steering/attribution/token_mask.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>

namespace trimtab {
namespace {

// The positions of the `limit` largest values of sign * score that are above 0.
std::vector<int64_t> Largest(const std::vector<double>& scores, const std::vector<int64_t>& candidates, double sign,
                             size_t limit) {
  std::vector<size_t> order;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (sign * scores[i] > 0) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return sign * scores[a] > sign * scores[b]; });
  if (order.size() > limit) order.resize(limit);
  std::vector<int64_t> positions;
  for (size_t i : order) positions.push_back(candidates[i]);
  std::sort(positions.begin(), positions.end());
  return positions;
}

size_t Common(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  std::vector<int64_t> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return both.size();
}

}  // namespace

MaskedSides SelectSides(const std::vector<double>& scores, const std::vector<int64_t>& candidates, int k, double rho) {
  // The small term keeps 0.3 * 10 from becoming 4.
  const auto share = static_cast<int64_t>(std::ceil(rho * static_cast<double>(candidates.size()) - 1e-6));
  const auto limit = static_cast<size_t>(std::max<int64_t>(0, std::min<int64_t>(k, share)));
  return {Largest(scores, candidates, 1, limit), Largest(scores, candidates, -1, limit)};
}

double SelectionOverlap(const MaskedSides& a, const MaskedSides& b) {
  const size_t larger = std::max(a.positive.size() + a.negative.size(), b.positive.size() + b.negative.size());
  if (larger == 0) return 1;
  return static_cast<double>(Common(a.positive, b.positive) + Common(a.negative, b.negative)) /
         static_cast<double>(larger);
}

}  // namespace trimtab
