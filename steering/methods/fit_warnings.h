// What an operator should know about a fit, in sentences. No torch. Any thread.
#ifndef TRIMTAB_STEERING_METHODS_FIT_WARNINGS_H_
#define TRIMTAB_STEERING_METHODS_FIT_WARNINGS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "steering/steering_method.h"

namespace trimtab {

struct FitFindings {
  const FitReport& report;
  const std::vector<LayerDirection>& directions;
  int64_t left_out = 0;
  int64_t training = 0;
  bool reversed = false;
  bool over_budget = false;
  bool validated_on_training = false;
  bool has_neutral_text = false;
};

// Whatever the method is.
std::vector<std::string> FitWarnings(const FitFindings& findings);

// For directions that come from the pairs' differences alone: empty unless some direction disagrees with their mean.
std::vector<std::string> DisagreementWarnings(const std::vector<LayerDirection>& directions);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_FIT_WARNINGS_H_
