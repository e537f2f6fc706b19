// The value of --steer: which objectives steer a request, and how strongly. Any thread.
#ifndef TRIMTAB_TOOLS_TRIMCTL_STEER_ARGUMENT_H_
#define TRIMTAB_TOOLS_TRIMCTL_STEER_ARGUMENT_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "trimtab/v1/common.pb.h"

namespace trimtab {

// One selection: "calm", "calm=0.3", "calm@2=-0.1" or a full name with or without a strength. INVALID_ARGUMENT.
absl::StatusOr<v1::SteeringSelection> ParseSteer(std::string_view text);

// Selections separated by commas; none for "".
absl::StatusOr<std::vector<v1::SteeringSelection>> ParseSteerList(std::string_view text);

// "all", "from_last_prompt" or "response"; APPLY_TO_UNSPECIFIED for "". INVALID_ARGUMENT.
absl::StatusOr<v1::ApplyTo> ParseApplyTo(std::string_view text);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_STEER_ARGUMENT_H_
