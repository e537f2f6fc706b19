#include "tools/trimctl/steer_argument.h"

#include <cmath>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/status_macros.h"

namespace trimtab {

absl::StatusOr<v1::SteeringSelection> ParseSteer(std::string_view text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(std::string(text), absl::MaxSplits('=', 1));
  if (parts.first.empty() || parts.first.find_first_of(" \t") != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("--steer must be NAME, NAME=STRENGTH or NAME@REVISION=STRENGTH, not \"", std::string(text), "\""));
  }
  v1::SteeringSelection selection;
  selection.set_objective(parts.first);
  if (text.find('=') != std::string_view::npos) {
    float strength = 0;
    if (!absl::SimpleAtof(parts.second, &strength) || !std::isfinite(strength)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--steer ", parts.first, "=: the strength must be a number, not \"", parts.second, "\""));
    }
    selection.set_strength(strength);
  }
  return selection;
}

absl::StatusOr<std::vector<v1::SteeringSelection>> ParseSteerList(std::string_view text) {
  std::vector<v1::SteeringSelection> selections;
  if (text.empty()) return selections;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(std::string(text), ','))) {
    TRIMTAB_ASSIGN_OR_RETURN(v1::SteeringSelection selection, ParseSteer(part));
    selections.push_back(std::move(selection));
  }
  return selections;
}

absl::StatusOr<v1::ApplyTo> ParseApplyTo(std::string_view text) {
  if (text.empty()) return v1::APPLY_TO_UNSPECIFIED;
  if (text == "all") return v1::APPLY_TO_ALL;
  if (text == "from_last_prompt") return v1::APPLY_TO_FROM_LAST_PROMPT;
  if (text == "response") return v1::APPLY_TO_RESPONSE;
  return absl::InvalidArgumentError(absl::StrCat(
      "--apply_to must be \"all\", \"from_last_prompt\" or \"response\", not \"", std::string(text), "\""));
}

}  // namespace trimtab
