// Which of the candidate directions, and how strong: the one that gains most on validation pairs at the same cost on
// neutral text (steering.md E). One job's thread.
#ifndef TRIMTAB_STEERING_METHODS_DIRECTION_SEARCH_H_
#define TRIMTAB_STEERING_METHODS_DIRECTION_SEARCH_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "steering/methods/direction_source.h"
#include "steering/methods/progress.h"
#include "steering/model_probe.h"
#include "steering/steering_method.h"

namespace trimtab {

struct SearchResult {
  DirectionSet directions;  // the chosen ones, turned round when the validation pairs said so
  size_t chosen = 0;        // index among the candidates
  float strength = 0;
  double kl = 0;  // at that strength; 0 without neutral text
  EffectSummary validation;
  std::vector<double> gains;          // change of each validation pair's margin, nats per token
  std::vector<StrengthPoint> points;  // all that was measured
  bool reversed = false;              // every candidate lost on the validation pairs, and its reverse gains
  bool over_budget = false;           // no strength within max_kl was found
};

// The vector that applies `directions` as `recipe` says. `max_strength` is chosen from `strength`.
absl::StatusOr<std::shared_ptr<const SteeringVector>> MakeVector(const FitRecipe& recipe, const ModelProbe& probe,
                                                                 DirectionSet directions, float strength);

// `kind` is the margin that is compared, per token. Strengths are the options' candidates, else for each
// candidate the one that costs max_kl (found by a few measurements), else, without neutral text, a cautious one.
absl::StatusOr<SearchResult> SearchDirections(const FitRecipe& recipe, ModelProbe& probe,
                                              const std::vector<DirectionSet>& candidates,
                                              const std::vector<const EncodedPair*>& validation, MarginKind kind,
                                              ProgressMeter& progress, JobContext& job);

// Gains of `recipe.options.random_directions()` random directions in the place of `directions`, at the same strength:
// mean over `pairs` for each.
absl::StatusOr<std::vector<double>> RandomControl(const FitRecipe& recipe, const ModelProbe& probe,
                                                  const DirectionSet& directions, float strength,
                                                  const std::vector<const EncodedPair*>& pairs, MarginKind kind,
                                                  JobContext& job);

// Rows of forward passes.
double SearchCost(const FitRecipe& recipe, const ModelProbe& probe, size_t candidates,
                  const std::vector<const EncodedPair*>& validation);
double SteeredCost(const FitRecipe& recipe, const std::vector<const EncodedPair*>& pairs, size_t settings);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_DIRECTION_SEARCH_H_
