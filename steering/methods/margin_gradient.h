// The mean over pairs of the gradient of the objective with respect to the edit: the steepest way up, measured on the
// pairs themselves (steering.md E). Any thread.
#ifndef TRIMTAB_STEERING_METHODS_MARGIN_GRADIENT_H_
#define TRIMTAB_STEERING_METHODS_MARGIN_GRADIENT_H_

#include "absl/status/statusor.h"
#include "steering/methods/direction_source.h"
#include "trimtab/methods/v1/margin_gradient.pb.h"

namespace trimtab {

// FIELD_INVALID with every violation.
absl::StatusOr<FitRecipe> MarginGradientRecipe(const methods::v1::MarginGradientConfig& config);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_MARGIN_GRADIENT_H_
