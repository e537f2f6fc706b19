#include "steering/attribution/occlusion.h"

#include "server/base/status_macros.h"
#include "steering/attribution/random.h"

namespace trimtab {

absl::StatusOr<OcclusionResult> Occlusion(const std::vector<int64_t>& candidates, const MaskedValueFunction& values) {
  std::vector<std::vector<int64_t>> masked = {{}};
  for (int64_t candidate : candidates) masked.push_back({candidate});
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<double> f, values(masked));
  OcclusionResult result{.value = f[0]};
  for (size_t i = 1; i < f.size(); ++i) result.scores.push_back(f[0] - f[i]);
  return result;
}

std::vector<double> RandomScores(size_t count, uint64_t seed, uint64_t stream) {
  Random random(seed, stream);
  std::vector<double> scores(count);
  for (double& score : scores) score = random.Normal();
  return scores;
}

}  // namespace trimtab
