// Activations and gradients of the training pairs at the candidate layers, in resumable groups. One job's thread.
#ifndef TRIMTAB_STEERING_METHODS_TRAINING_STATES_H_
#define TRIMTAB_STEERING_METHODS_TRAINING_STATES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "steering/methods/direction.h"
#include "steering/methods/pair_attribution.h"
#include "steering/methods/progress.h"
#include "steering/model_probe.h"

namespace trimtab {

// A pair that takes part in a fit.
struct FitPair {
  int64_t index = 0;  // in FitInput::pairs
  EncodedPair encoded;
  double weight = 1;
  PairScores scores;
};

// Evidence at each of `layers` (ascending). Groups of pairs are saved under keys that begin with `key_prefix`, so that
// a resumed job computes only what is missing, in the same groups and hence with the same bits.
absl::StatusOr<std::vector<LayerEvidence>> CollectEvidence(const methods::v1::GrainsConfig& resolved,
                                                           const ModelProbe& probe, const std::vector<FitPair>& pairs,
                                                           MarginKind kind, const std::vector<int64_t>& layers,
                                                           const std::string& key_prefix, ProgressMeter& progress,
                                                           JobContext& job);

// Rows of forward passes that CollectEvidence takes for a pair.
double EvidenceCost(const methods::v1::GrainsConfig& resolved, const EncodedPair& pair, double depth_share);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_TRAINING_STATES_H_
