// The method "auto": fits several methods on the same training pairs, compares what each gains on the same validation
// pairs within the same budget of divergence, and gives the best one's vector. Serving costs the same whichever it is,
// so the largest mean gain wins; a method that stands earlier in the list is taken when its gain is within 5 % of the
// largest. The report says whether the lead over the next one is clear of chance. Any thread.
#ifndef TRIMTAB_STEERING_METHODS_AUTO_H_
#define TRIMTAB_STEERING_METHODS_AUTO_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "steering/method_registry.h"
#include "steering/methods/pipeline_method.h"
#include "steering/steering_method.h"

namespace trimtab {

class AutoMethod final : public SteeringMethod {
 public:
  // `candidates`: what `methods` of an AutoConfig may name. `defaults`: what an empty list means.
  struct Choice {
    std::vector<PipelineMethod> candidates;
    std::vector<std::string> defaults;
  };
  static MethodInfo Info(const Choice& choice);
  static MethodRegistry::Factory Factory(Choice choice);

  // Recipes with the same options for the pairs (objective, split, length).
  explicit AutoMethod(std::vector<FitRecipe> recipes) : recipes_(std::move(recipes)) {}

  absl::StatusOr<FitResult> Fit(const FitInput& input, ModelProbe& probe, JobContext& job) const override;
  absl::StatusOr<FitPreview> Preview(const FitInput& input, const ModelProbe& probe) const override;

 private:
  const std::vector<FitRecipe> recipes_;
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_AUTO_H_
