#include "steering/methods/masking_effect.h"

#include <algorithm>

#include "server/base/status_macros.h"
#include "steering/attribution/random.h"
#include "steering/methods/pair_attribution.h"

namespace trimtab {
namespace {

constexpr uint64_t kRandomStream = uint64_t{1} << 41;

std::vector<int64_t> RandomPositions(const std::vector<int64_t>& candidates, size_t count, Random& random) {
  std::vector<size_t> order = random.Permutation(candidates.size());
  std::vector<int64_t> positions;
  for (size_t i = 0; i < count; ++i) positions.push_back(candidates[order[i]]);
  std::sort(positions.begin(), positions.end());
  return positions;
}

std::vector<double> Difference(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> difference;
  for (size_t i = 0; i < a.size(); ++i) difference.push_back(a[i] - b[i]);
  return difference;
}

}  // namespace

absl::StatusOr<MaskingEffect> MeasureMaskingEffect(const methods::v1::GrainsConfig& resolved, const ModelProbe& probe,
                                                   const std::vector<EncodedPair>& pairs, MarginKind kind,
                                                   JobContext& job) {
  const at::Tensor mask = MaskOf(resolved, probe);
  std::vector<double> positive, negative, random_positive, random_negative, errors;
  MaskingEffect effect;
  for (size_t p = 0; p < pairs.size(); ++p) {
    TRIMTAB_ASSIGN_OR_RETURN(const PairScores scores, AttributePair(resolved, probe, pairs[p], kind, p, job));
    if (scores.sides.positive.empty() || scores.sides.negative.empty()) continue;
    Random random(resolved.fit().seed(), kRandomStream + p);
    TRIMTAB_ASSIGN_OR_RETURN(
        const std::vector<double> control,
        probe.MaskedMargins(pairs[p], kind,
                            {RandomPositions(pairs[p].candidates, scores.sides.positive.size(), random),
                             RandomPositions(pairs[p].candidates, scores.sides.negative.size(), random)},
                            mask, job));
    positive.push_back(scores.margin_positive - scores.margin);
    negative.push_back(scores.margin_negative - scores.margin);
    random_positive.push_back(control[0] - scores.margin);
    random_negative.push_back(control[1] - scores.margin);
    errors.push_back(scores.completeness_error);
    effect.low_confidence += scores.low_confidence ? 1 : 0;
  }
  effect.pairs = static_cast<int64_t>(positive.size());
  effect.positive = MeanWithInterval(positive);
  effect.negative = MeanWithInterval(negative);
  effect.random_positive = MeanWithInterval(random_positive);
  effect.random_negative = MeanWithInterval(random_negative);
  effect.positive_against_random = MeanWithInterval(Difference(positive, random_positive));
  effect.negative_against_random = MeanWithInterval(Difference(negative, random_negative));
  if (!errors.empty()) {
    std::nth_element(errors.begin(), errors.begin() + static_cast<ptrdiff_t>(errors.size() / 2), errors.end());
    effect.median_completeness_error = errors[errors.size() / 2];
  }
  return effect;
}

}  // namespace trimtab
