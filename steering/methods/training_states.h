// Activations and gradients of the training pairs at the candidate layers, in resumable groups. One job's thread.
#ifndef TRIMTAB_STEERING_METHODS_TRAINING_STATES_H_
#define TRIMTAB_STEERING_METHODS_TRAINING_STATES_H_

#include <vector>

#include "absl/status/statusor.h"
#include "steering/methods/direction.h"
#include "steering/methods/direction_source.h"
#include "steering/methods/pair_attribution.h"
#include "steering/model_probe.h"

namespace trimtab {

// Evidence at each of context.layers. `scores` belong to the training pairs, in order.
absl::StatusOr<std::vector<LayerEvidence>> CollectEvidence(const methods::v1::GrainsConfig& resolved,
                                                           const FitContext& context,
                                                           const std::vector<PairScores>& scores);

// Rows of forward passes that CollectEvidence takes for a pair.
double EvidenceCost(const methods::v1::GrainsConfig& resolved, const FitContext& context, const EncodedPair& pair);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_TRAINING_STATES_H_
