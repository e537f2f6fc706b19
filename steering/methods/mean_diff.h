// The mean over pairs of the difference between the mean activations over the tokens of the preferred and of the
// dispreferred answer. Any thread.
#ifndef TRIMTAB_STEERING_METHODS_MEAN_DIFF_H_
#define TRIMTAB_STEERING_METHODS_MEAN_DIFF_H_

#include "absl/status/statusor.h"
#include "steering/methods/direction_source.h"
#include "trimtab/methods/v1/mean_diff.pb.h"

namespace trimtab {

// FIELD_INVALID with every violation.
absl::StatusOr<FitRecipe> MeanDiffRecipe(const methods::v1::MeanDiffConfig& config);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_MEAN_DIFF_H_
