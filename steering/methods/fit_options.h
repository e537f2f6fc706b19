// Checks of a method's configuration, and the options that every fit has, with defaults filled in. Any thread.
#ifndef TRIMTAB_STEERING_METHODS_FIT_OPTIONS_H_
#define TRIMTAB_STEERING_METHODS_FIT_OPTIONS_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "steering/steering_vector.h"
#include "trimtab/methods/v1/fit.pb.h"

namespace trimtab {

// Collects what is wrong with a method_config.
class ConfigChecker {
 public:
  // `field` is below "method_config", for example "fit.max_kl".
  void Require(bool ok, std::string_view field, std::string rule) {
    if (!ok)
      violations_.push_back(
          {absl::StrCat("method_config.", absl::string_view(field.data(), field.size())), std::move(rule)});
  }
  template <typename T>
  void Range(std::string_view field, T value, T low, T high) {
    Require(value >= low && value <= high, field, absl::StrCat("must be ", low, " to ", high));
  }
  void AboveZero(std::string_view field, double value, double high) {
    Require(value > 0 && value <= high, field, absl::StrCat("must be above 0 and at most ", high));
  }
  // FIELD_INVALID with every violation.
  absl::Status status() const { return violations_.empty() ? absl::OkStatus() : FieldError(violations_); }

 private:
  std::vector<FieldViolation> violations_;
};

// `given` with the value of `defaults`, else the usual one, in every field that is not set, checked; objective, layers,
// candidate_layers, candidate_strengths and batch_tokens may stay open: the fit chooses them by the pairs and the
// model.
methods::v1::FitOptions ResolveFitOptions(const methods::v1::FitOptions& given, const methods::v1::FitOptions& defaults,
                                          ConfigChecker& checker);

ApplyTo ApplyToOf(const methods::v1::FitOptions& resolved);
StrengthMode StrengthModeOf(const methods::v1::FitOptions& resolved);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_FIT_OPTIONS_H_
