// The way from preference pairs to a vector that every method shares: split the pairs, ask the method for directions,
// choose among them on validation pairs within a budget of divergence, measure the effect on unseen pairs and of random
// directions, report. One job's thread.
#ifndef TRIMTAB_STEERING_METHODS_FIT_PIPELINE_H_
#define TRIMTAB_STEERING_METHODS_FIT_PIPELINE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/job_context.h"
#include "steering/methods/direction_search.h"
#include "steering/methods/direction_source.h"
#include "steering/methods/fit_pairs.h"
#include "steering/methods/progress.h"
#include "steering/model_probe.h"
#include "steering/steering_method.h"

namespace trimtab {

// SteeringMethod::Fit and Preview of a recipe.
absl::StatusOr<FitResult> RunFit(const FitRecipe& recipe, const FitInput& input, ModelProbe& probe, JobContext& job);
absl::StatusOr<FitPreview> PreviewFit(const FitRecipe& recipe, const FitInput& input, const ModelProbe& probe);

// Encodes and splits, and tells `progress` of pairs that cannot be used.
absl::StatusOr<FitPairs> PrepareForFit(const methods::v1::FitOptions& resolved, const FitInput& input,
                                       const ModelProbe& probe, ProgressMeter& progress, JobContext& job);
FitPreview PreviewOf(const FitPairs& pairs);  // but for rows

// Rows of forward passes that a fit takes, about.
struct FitCost {
  double search = 0, finish = 0;
};
// FIELD_INVALID: a block that the model does not have.
absl::StatusOr<FitCost> CostOfFit(const FitRecipe& recipe, const FitPairs& pairs, const ModelProbe& probe);

// One recipe on pairs that are split: first Search, then, where its result is wanted, Finish. All arguments outlive it.
class FitRun {
 public:
  // FIELD_INVALID: a block that the model does not have.
  static absl::StatusOr<std::unique_ptr<FitRun>> Create(const FitRecipe& recipe, const FitPairs& pairs,
                                                        ModelProbe& probe, ProgressMeter& progress, JobContext& job);
  // Rows of forward passes.
  double SearchCost() const;
  double FinishCost() const;

  // Measures the training pairs and chooses direction and strength. Errors: those of DirectionSource::Candidates.
  absl::Status Search();
  const FitRecipe& recipe() const { return recipe_; }
  const SearchResult& search() const { return search_; }  // after Search
  absl::StatusOr<FitResult> Finish();                     // after Search

 private:
  FitRun(const FitRecipe& recipe, const FitPairs& pairs, std::vector<int64_t> layers, ModelProbe& probe,
         ProgressMeter& progress, JobContext& job);
  FitContext Context() const;
  std::vector<const EncodedPair*> ControlPairs() const;

  const FitRecipe& recipe_;
  const FitPairs& pairs_;
  const std::vector<int64_t> layers_;
  ModelProbe& probe_;
  ProgressMeter& progress_;
  JobContext& job_;
  const std::unique_ptr<DirectionSource> source_;
  SearchResult search_;
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_FIT_PIPELINE_H_
