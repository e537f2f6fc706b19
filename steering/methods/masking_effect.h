// The paper's figure 3 on any pairs: does masking the attributed tokens move the preference the way that the scores
// say, and by more than masking random ones? One job's thread.
#ifndef TRIMTAB_STEERING_METHODS_MASKING_EFFECT_H_
#define TRIMTAB_STEERING_METHODS_MASKING_EFFECT_H_

#include <vector>

#include "absl/status/statusor.h"
#include "steering/methods/effect.h"
#include "steering/model_probe.h"
#include "trimtab/methods/v1/grains.pb.h"

namespace trimtab {

// Changes of F, nats (per token for the mean objectives), over the pairs that have tokens on both sides.
struct MaskingEffect {
  int64_t pairs = 0;
  MeanInterval positive;                 // S+ masked: should be below 0
  MeanInterval negative;                 // S- masked: should be above 0
  MeanInterval random_positive;          // as many random candidates as S+ has
  MeanInterval random_negative;          // as many as S- has
  MeanInterval positive_against_random;  // paired differences
  MeanInterval negative_against_random;
  double median_completeness_error = 0;
  int64_t low_confidence = 0;
};

absl::StatusOr<MaskingEffect> MeasureMaskingEffect(const methods::v1::GrainsConfig& resolved, const ModelProbe& probe,
                                                   const std::vector<EncodedPair>& pairs, MarginKind kind,
                                                   JobContext& job);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_MASKING_EFFECT_H_
