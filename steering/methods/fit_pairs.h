// The pairs of a fit, encoded and split. One job's thread.
#ifndef TRIMTAB_STEERING_METHODS_FIT_PAIRS_H_
#define TRIMTAB_STEERING_METHODS_FIT_PAIRS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "steering/methods/progress.h"
#include "steering/methods/training_states.h"
#include "steering/model_probe.h"
#include "steering/steering_method.h"
#include "trimtab/methods/v1/grains.pb.h"

namespace trimtab {

struct FitPairs {
  std::vector<FitPair> training;                   // scores still empty
  std::vector<EncodedPair> validation;             // choose layer and strength; empty when the pairs are too few
  std::vector<EncodedPair> held_out;               // only evaluated on
  int64_t left_out = 0;                            // pairs of FitInput::pairs that cannot be used
  MarginKind kind = MarginKind::kPrefMean;         // what is attributed
  MarginKind report_kind = MarginKind::kPrefMean;  // what effects are reported in: nats per token
};

// Encodes and splits by the configuration's seed. Pairs that cannot be used are reported to `progress` with a reason.
// PAIRS_DEGENERATE: the answers are the same everywhere, or fewer than four pairs are left to train on.
absl::StatusOr<FitPairs> PreparePairs(const methods::v1::GrainsConfig& resolved, const FitInput& input,
                                      const ModelProbe& probe, ProgressMeter& progress, JobContext& job);

// PAIRS_DEGENERATE with a message for the operator.
absl::Status PairsDegenerate(std::string_view message, int64_t usable);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_FIT_PAIRS_H_
