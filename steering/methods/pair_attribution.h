// Attribution of one pair: scores of its tokens, the two masked sides, and what masking them does. One job's thread.
#ifndef TRIMTAB_STEERING_METHODS_PAIR_ATTRIBUTION_H_
#define TRIMTAB_STEERING_METHODS_PAIR_ATTRIBUTION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/job_context.h"
#include "steering/attribution/token_mask.h"
#include "steering/model_probe.h"
#include "trimtab/methods/v1/grains.pb.h"

namespace trimtab {

struct PairScores {
  std::string attribution;     // what scored it: "occlusion", "integrated_gradients", "gradient",
                               // "smoothgrad" or "random"
  std::vector<double> scores;  // of the pair's candidates, nats
  MaskedSides sides;
  double margin = 0;                                // F of the whole prompt
  double margin_positive = 0, margin_negative = 0;  // F with S+ or S- masked; F itself when the side is empty
  double completeness_error = 0;                    // relative; 0 without a path
  bool low_confidence = false;                      // the error stayed above the tolerance

  // For a job's partial results. Parse returns false for bytes that are not those of Serialize.
  std::string Serialize() const;
  bool Parse(std::string_view bytes);
};

// The attribution that `resolved` asks for, for a pair with so many candidates: occlusion when it is not set and
// cheaper than the gradients (steering.md B), else integrated gradients.
methods::v1::GrainsConfig::AttributionKind ChooseAttribution(const methods::v1::GrainsConfig& resolved,
                                                             size_t candidates);

// What a masked token's embedding becomes: [hidden].
at::Tensor MaskOf(const methods::v1::GrainsConfig& resolved, const ModelProbe& probe);

// `stream` tells pairs apart where scores are random. A path whose error stays above the tolerance at the finest
// adaptive rule is replaced by occlusion and marked. Errors: those of the job's checkpoints.
absl::StatusOr<PairScores> AttributePair(const methods::v1::GrainsConfig& resolved, const ModelProbe& probe,
                                         const EncodedPair& pair, MarginKind kind, uint64_t stream, JobContext& job);

// The same, kept as a partial result of the job under what it depends on.
absl::StatusOr<PairScores> AttributePairOnce(const methods::v1::GrainsConfig& resolved, const ModelProbe& probe,
                                             const EncodedPair& pair, MarginKind kind, JobContext& job);

// Rows of forward passes that AttributePair is expected to take; rows with gradients count four times.
double AttributionCost(const methods::v1::GrainsConfig& resolved, const EncodedPair& pair);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_PAIR_ATTRIBUTION_H_
