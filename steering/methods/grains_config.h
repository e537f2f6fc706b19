// The configuration of the method "grains", checked and with every default filled in. Any thread.
#ifndef TRIMTAB_STEERING_METHODS_GRAINS_CONFIG_H_
#define TRIMTAB_STEERING_METHODS_GRAINS_CONFIG_H_

#include "absl/status/statusor.h"
#include "steering/attribution/integrated_gradients.h"
#include "trimtab/methods/v1/grains.pb.h"

namespace trimtab {

// `config` with the preset's value in every field that is not set; `attribution` and what ResolveFitOptions leaves open
// may stay open: the fit chooses them by the pairs and the model. FIELD_INVALID names every field that is out of range,
// below "method_config".
absl::StatusOr<methods::v1::GrainsConfig> ResolveGrainsConfig(const methods::v1::GrainsConfig& config);

IntegratedGradientsOptions PathOptions(const methods::v1::GrainsConfig& resolved);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_GRAINS_CONFIG_H_
