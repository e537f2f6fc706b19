#include "steering/methods/pipeline_method.h"

#include "steering/methods/fit_pipeline.h"
#include "steering/steering_method.h"

namespace trimtab {
namespace {

class RecipeMethod final : public SteeringMethod {
 public:
  explicit RecipeMethod(FitRecipe recipe) : recipe_(std::move(recipe)) {}
  absl::StatusOr<FitResult> Fit(const FitInput& input, ModelProbe& probe, JobContext& job) const override {
    return RunFit(recipe_, input, probe, job);
  }
  absl::StatusOr<FitPreview> Preview(const FitInput& input, const ModelProbe& probe) const override {
    return PreviewFit(recipe_, input, probe);
  }

 private:
  const FitRecipe recipe_;
};

}  // namespace

MethodRegistry::Factory PipelineMethod::factory() const {
  return [make = recipe](const google::protobuf::Any* config) -> absl::StatusOr<std::unique_ptr<SteeringMethod>> {
    TRIMTAB_ASSIGN_OR_RETURN(FitRecipe made, make(config));
    return std::make_unique<RecipeMethod>(std::move(made));
  };
}

std::string SiteName(Site site) {
  switch (site) {
    case Site::kAttentionOutput:
      return "attention_output";
    case Site::kMlpOutput:
      return "mlp_output";
    default:
      return "block_output";
  }
}

}  // namespace trimtab
