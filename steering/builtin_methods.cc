// The methods of this tree, registered explicitly: one line each.
#include <vector>

#include "server/base/status_macros.h"
#include "steering/method_registry.h"
#include "steering/methods/auto.h"
#include "steering/methods/caa.h"
#include "steering/methods/grains.h"
#include "steering/methods/icv.h"
#include "steering/methods/iti.h"
#include "steering/methods/margin_gradient.h"
#include "steering/methods/mean_diff.h"
#include "steering/methods/pipeline_method.h"
#include "steering/methods/random_direction.h"

namespace trimtab {
namespace {

std::vector<PipelineMethod> Methods() {
  return {
      MakePipelineMethod("grains", "GrAInS",
                         "Attributes the preference to prompt tokens, masks those that speak for either answer and "
                         "steers along the principal directions of what masking changes, oriented by the preference's "
                         "own gradient.",
                         &GrainsRecipe),
      MakePipelineMethod("margin_gradient", "Margin gradient",
                         "Steers along the mean gradient of the preference with respect to the edit.",
                         &MarginGradientRecipe),
      MakePipelineMethod("caa", "Contrastive activation addition",
                         "Steers along the mean difference of activations at one position of the two answers.",
                         &CaaRecipe),
      MakePipelineMethod("mean_diff", "Mean difference",
                         "Steers along the mean difference of activations over the tokens of the two answers.",
                         &MeanDiffRecipe),
      MakePipelineMethod("icv", "In-context vectors",
                         "Adds the difference of whole texts' last states to the output of every MLP, the more the "
                         "further that output points away.",
                         &IcvRecipe),
      MakePipelineMethod("iti", "Inference-time intervention",
                         "Steers the attention heads that tell the answers apart best, found by logistic regressions, "
                         "along the mean difference of their values.",
                         &ItiRecipe),
      MakePipelineMethod("nl_iti", "Non-linear inference-time intervention",
                         "As iti, with heads found by small networks on the mean over an answer's last tokens.",
                         &NlItiRecipe),
      MakePipelineMethod("random", "Random direction", "Steers along a random direction: the control.", &RandomRecipe),
  };
}

}  // namespace

absl::Status RegisterBuiltinMethods(MethodRegistry& registry) {
  const std::vector<PipelineMethod> methods = Methods();
  for (const PipelineMethod& method : methods) {
    TRIMTAB_RETURN_IF_ERROR(registry.Register(method.info, method.factory()));
  }
  const AutoMethod::Choice choice{.candidates = methods,
                                  .defaults = {"grains", "margin_gradient", "caa", "mean_diff", "icv", "iti"}};
  return registry.Register(AutoMethod::Info(choice), AutoMethod::Factory(choice));
}

}  // namespace trimtab
