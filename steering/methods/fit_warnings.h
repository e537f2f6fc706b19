// What an operator should know about a fit, in sentences. No torch. Any thread.
#ifndef TRIMTAB_STEERING_METHODS_FIT_WARNINGS_H_
#define TRIMTAB_STEERING_METHODS_FIT_WARNINGS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "steering/steering_method.h"
#include "trimtab/methods/v1/grains.pb.h"

namespace trimtab {

struct FitFindings {
  const methods::v1::GrainsConfig& config;
  const FitReport& report;
  const std::vector<LayerDirection>& directions;
  int64_t left_out = 0;
  double agreement = 1;  // of the pairs' deltas with the mean gradient (Agreement)
  int64_t training = 0;
  bool reversed = false;
  bool over_budget = false;
  bool validated_on_training = false;
  bool has_neutral_text = false;
};

std::vector<std::string> FitWarnings(const FitFindings& findings);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_FIT_WARNINGS_H_
