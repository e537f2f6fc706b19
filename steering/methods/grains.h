// GrAInS (arXiv 2507.18043): gradient-based attribution finds the prompt tokens that a preference hangs on; masking
// them on either side gives per-pair differences of activations; their principal directions are where to steer. The
// preset PRODUCT deviates from the paper where held-out pairs say so; PAPER_FAITHFUL does not (grains_config.cc). Any
// thread.
#ifndef TRIMTAB_STEERING_METHODS_GRAINS_H_
#define TRIMTAB_STEERING_METHODS_GRAINS_H_

#include "absl/status/statusor.h"
#include "steering/methods/direction_source.h"
#include "trimtab/methods/v1/grains.pb.h"

namespace trimtab {

// FIELD_INVALID with every violation.
absl::StatusOr<FitRecipe> GrainsRecipe(const methods::v1::GrainsConfig& config);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_GRAINS_H_
