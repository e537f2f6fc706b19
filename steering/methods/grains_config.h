// The configuration of the method "grains", checked and with every default filled in. Any thread.
#ifndef TRIMTAB_STEERING_METHODS_GRAINS_CONFIG_H_
#define TRIMTAB_STEERING_METHODS_GRAINS_CONFIG_H_

#include "absl/status/statusor.h"
#include "steering/attribution/integrated_gradients.h"
#include "steering/steering_vector.h"
#include "trimtab/methods/v1/grains.pb.h"

namespace trimtab {

// `config` with the preset's value in every field that is not set; `objective`, `attribution`, `layers`,
// `candidate_layers`, `candidate_strengths` and `batch_tokens` may stay open: the fit chooses them by the pairs and the
// model. FIELD_INVALID names every field that is out of range, below "method_config".
absl::StatusOr<methods::v1::GrainsConfig> ResolveGrainsConfig(const methods::v1::GrainsConfig& config);

IntegratedGradientsOptions PathOptions(const methods::v1::GrainsConfig& resolved);
ApplyTo ApplyToOf(const methods::v1::GrainsConfig& resolved);
StrengthMode StrengthModeOf(const methods::v1::GrainsConfig& resolved);
Operation OperationOf(const methods::v1::GrainsConfig& resolved);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_GRAINS_CONFIG_H_
