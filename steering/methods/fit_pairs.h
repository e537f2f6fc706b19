// The pairs of a fit, encoded and split. No pass through the model: cheap enough to check a registration with. Any
// thread.
#ifndef TRIMTAB_STEERING_METHODS_FIT_PAIRS_H_
#define TRIMTAB_STEERING_METHODS_FIT_PAIRS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "steering/model_probe.h"
#include "steering/steering_method.h"
#include "trimtab/methods/v1/fit.pb.h"

namespace trimtab {

// A pair that takes part in a fit.
struct FitPair {
  int64_t index = 0;  // in FitInput::pairs
  EncodedPair encoded;
  double weight = 1;
};

struct FitPairs {
  std::vector<FitPair> training;                   // directions come from them
  std::vector<EncodedPair> validation;             // choose layer and strength; empty when the pairs are too few
  std::vector<EncodedPair> held_out;               // only evaluated on
  std::vector<UnusablePair> unusable;              // in order
  int64_t left_out = 0;                            // of FitInput::pairs
  MarginKind kind = MarginKind::kPrefMean;         // the scalar that is raised
  MarginKind report_kind = MarginKind::kPrefMean;  // what effects are reported in: nats per token
};

// Encodes and splits by the options' seed (`resolved`: ResolveFitOptions). `checkpoint` is asked from time to time
// whether to go on, unless it is null. PAIRS_DEGENERATE: the answers are the same everywhere, or fewer than four pairs
// are left to train on.
absl::StatusOr<FitPairs> PreparePairs(const methods::v1::FitOptions& resolved, const FitInput& input,
                                      const ModelProbe& probe, const std::function<absl::Status()>& checkpoint = {});

// Pairs that choose layer and strength: those kept apart, else the training pairs.
std::vector<const EncodedPair*> ValidationPairs(const FitPairs& pairs);
std::vector<const EncodedPair*> HeldOutPairs(const FitPairs& pairs);

// PAIRS_DEGENERATE with a message for the operator.
absl::Status PairsDegenerate(std::string_view message, int64_t usable);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_FIT_PAIRS_H_
