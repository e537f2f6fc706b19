// A steering method made of a recipe: how the methods of this tree are registered (builtin_methods.cc) and how "auto"
// makes them. Any thread.
#ifndef TRIMTAB_STEERING_METHODS_PIPELINE_METHOD_H_
#define TRIMTAB_STEERING_METHODS_PIPELINE_METHOD_H_

#include <google/protobuf/any.pb.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "steering/method_registry.h"
#include "steering/methods/direction_source.h"
#include "trimtab/methods/v1/fit.pb.h"

namespace trimtab {

struct PipelineMethod {
  MethodInfo info;
  // From a method_config (null: defaults). FIELD_INVALID with every violation; METHOD_CONFIG_MISMATCH for another type.
  std::function<absl::StatusOr<FitRecipe>(const google::protobuf::Any* config)> recipe;
  // With the method's defaults beyond `fit`.
  std::function<absl::StatusOr<FitRecipe>(const methods::v1::FitOptions& fit)> recipe_of_options;

  MethodRegistry::Factory factory() const;
};

// The message of type Config in `any`; defaults for null.
template <typename Config>
absl::StatusOr<Config> UnpackConfig(std::string_view method, const google::protobuf::Any* any) {
  Config config;
  if (any != nullptr && !any->UnpackTo(&config)) {
    return ReasonError(absl::StatusCode::kInvalidArgument, kMethodConfigMismatch,
                       absl::StrCat("method_config of \"", absl::string_view(method.data(), method.size()),
                                    "\" must be a ", config.GetTypeName()),
                       {{"expected", config.GetTypeName()}, {"type_url", any->type_url()}});
  }
  return config;
}

std::string SiteName(Site site);  // "block_output", ...

// `make` checks a Config, whose field `fit` is a FitOptions, and makes the recipe.
template <typename Config>
PipelineMethod MakePipelineMethod(std::string id, std::string display_name, std::string description,
                                  absl::StatusOr<FitRecipe> (*make)(const Config& config)) {
  const FitRecipe defaults = *make(Config());
  PipelineMethod method{.info = {.id = id,
                                 .display_name = std::move(display_name),
                                 .description = std::move(description),
                                 .config_type = Config::descriptor()->full_name(),
                                 .default_config = defaults.resolved_config,
                                 .sites = {SiteName(defaults.site)}}};
  method.recipe = [id, make](const google::protobuf::Any* any) -> absl::StatusOr<FitRecipe> {
    TRIMTAB_ASSIGN_OR_RETURN(const Config config, UnpackConfig<Config>(id, any));
    return make(config);
  };
  method.recipe_of_options = [make](const methods::v1::FitOptions& fit) {
    Config config;
    *config.mutable_fit() = fit;
    return make(config);
  };
  return method;
}

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_PIPELINE_METHOD_H_
