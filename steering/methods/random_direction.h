// A random direction: what a method has to beat. Any thread.
#ifndef TRIMTAB_STEERING_METHODS_RANDOM_DIRECTION_H_
#define TRIMTAB_STEERING_METHODS_RANDOM_DIRECTION_H_

#include "absl/status/statusor.h"
#include "steering/methods/direction_source.h"
#include "trimtab/methods/v1/random.pb.h"

namespace trimtab {

// FIELD_INVALID with every violation.
absl::StatusOr<FitRecipe> RandomRecipe(const methods::v1::RandomConfig& config);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_RANDOM_DIRECTION_H_
