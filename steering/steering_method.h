// A way of making a vector from preference pairs. Methods only fit; the runtime owns application, so no plugin code
// runs in the serving path.
#ifndef TRIMTAB_STEERING_STEERING_METHOD_H_
#define TRIMTAB_STEERING_STEERING_METHOD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/job_context.h"
#include "steering/preference.h"
#include "steering/steering_vector.h"

namespace trimtab {

class ModelProbe;

// The audit of one token of one training pair.
struct TokenAttribution {
  std::string text;
  int32_t token_id = 0;
  int32_t position = 0;
  float score = 0;  // signed; positive pushes to the preferred answer. NaN never: tokens that are no candidates have 0
  bool candidate = false;
  int8_t side = 0;  // +1 / -1: in the masked set S+ / S-; 0: in neither
};

struct PairAttribution {
  int64_t pair_index = 0;
  std::vector<TokenAttribution> tokens;  // of the prompt, in order
  std::string attribution;               // the method used for this pair, for example "occlusion" after a fall-back
  float margin = 0;                      // F on the unmasked prompt, nats (per token for the mean objectives)
  float margin_masked_positive = 0;      // F with S+ masked
  float margin_masked_negative = 0;      // F with S- masked
  float completeness_error = 0;          // relative (steering.md A3); 0 for methods without a path
  bool low_confidence = false;
  bool used = false;  // gave a row to the decomposition
};

// Effect on pairs that the fit has not seen, with a paired 95 % interval.
struct EffectSummary {
  int64_t pairs = 0;
  float accuracy_before = 0, accuracy_after = 0;  // share of pairs with a positive margin
  float margin_before = 0;                        // mean, nats per token
  float margin_gain = 0;                          // mean change of the margin
  float ci_low = 0, ci_high = 0;                  // 95 % interval of margin_gain
  float anti_steerable_share = 0;                 // share of pairs whose margin falls
};

// One point of the search over layers and strengths, on validation pairs.
struct StrengthPoint {
  int64_t layer = 0;
  float strength = 0;
  float margin_gain = 0;  // on validation pairs
  float kl = 0;           // mean nats per token on neutral text, all positions steered
};

// What one of several methods offers on the same validation pairs, at the same cost.
struct MethodTrial {
  std::string method;
  int64_t layer = 0;  // the first one that it would steer
  float strength = 0;
  EffectSummary validation;
  float kl = 0;          // mean nats per token on neutral text at that strength
  float efficiency = 0;  // margin gain per nat of divergence; 0 without neutral text
  bool chosen = false;
  std::string error;  // why it gave nothing to compare; empty otherwise
};

struct FitReport {
  std::string objective;   // the contrastive objective used: "pref_mean", ...
  int64_t pair_count = 0;  // training pairs that gave a row
  int64_t low_confidence_pairs = 0;
  float median_completeness_error = 0;
  std::vector<StrengthPoint> search;
  EffectSummary validation;
  EffectSummary held_out;   // pairs == 0 when no held-out pairs were given
  float kl_at_default = 0;  // mean nats per token on neutral text at the default strength
  // Gains of random directions at the same layer and strength, on held-out (else validation) pairs.
  float random_gain_mean = 0, random_gain_max = 0;
  int64_t random_directions = 0;
  std::string resolved_config;        // serialized config message of the method, defaults filled in
  std::vector<std::string> warnings;  // plain English, for the operator
  std::vector<MethodTrial> trials;    // of a choice among methods, in order; else empty
  std::string choice;                 // which of them was taken and why, in sentences
  std::vector<PairAttribution> attributions;
};

struct FitInput {
  std::vector<PreferencePair> pairs;           // training; the fit keeps its own validation share apart
  std::vector<PreferencePair> held_out_pairs;  // only evaluated on, never fitted or chosen on; may be empty
};

struct UnusablePair {
  std::string item;    // "pairs[3]" or "held_out_pairs[0]"
  std::string reason;  // for the operator
};

// What a fit would work with, known without a pass through the model.
struct FitPreview {
  int64_t training = 0, validation = 0, held_out = 0;  // usable pairs
  std::vector<UnusablePair> unusable;                  // in order
  std::string objective;                               // "pref_mean", ...
  double rows = 0;  // of forward passes that the fit takes, about; a row with gradients counts as four
};

struct FitResult {
  std::shared_ptr<const SteeringVector> vector;
  FitReport report;
};

class SteeringMethod {
 public:
  virtual ~SteeringMethod() = default;
  // Runs on a job worker; calls job.Checkpoint() between micro-batches and resumes from its partial results. Errors:
  // INVALID_ARGUMENT (PAIRS_DEGENERATE), CANCELLED, UNAVAILABLE, RESOURCE_EXHAUSTED (DEVICE_OUT_OF_MEMORY). The same
  // input gives the same digest, also after an interruption.
  virtual absl::StatusOr<FitResult> Fit(const FitInput& input, ModelProbe& probe, JobContext& job) const = 0;
  // Cheap: encodes the pairs and nothing more. INVALID_ARGUMENT (PAIRS_DEGENERATE, FIELD_INVALID) as Fit; UNIMPLEMENTED
  // for a method that cannot tell.
  virtual absl::StatusOr<FitPreview> Preview(const FitInput& /*input*/, const ModelProbe& /*probe*/) const {
    return absl::UnimplementedError("this method gives no preview");
  }
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_STEERING_METHOD_H_
