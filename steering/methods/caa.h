// Contrastive activation addition (Rimsky et al., arXiv 2312.06681; steering.md A12): the mean over pairs of the
// difference of activations at one position of the two answers. Any thread.
#ifndef TRIMTAB_STEERING_METHODS_CAA_H_
#define TRIMTAB_STEERING_METHODS_CAA_H_

#include "absl/status/statusor.h"
#include "steering/methods/direction_source.h"
#include "trimtab/methods/v1/caa.pb.h"

namespace trimtab {

// FIELD_INVALID with every violation.
absl::StatusOr<FitRecipe> CaaRecipe(const methods::v1::CaaConfig& config);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_CAA_H_
