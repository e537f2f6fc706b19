#include "steering/methods/fit_pipeline.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "steering/methods/effect.h"
#include "steering/methods/fit_options.h"
#include "steering/methods/fit_warnings.h"
#include "steering/methods/measurements.h"

namespace trimtab {
namespace {

constexpr size_t kMaxControlPairs = 12;  // the random control runs on no more
constexpr double kCandidateDepths[] = {0.5, 0.6, 0.7};

// True when the layers are steered together and not chosen from.
bool SteersTogether(const FitRecipe& recipe) {
  return recipe.options.layers_size() > 0 || (recipe.all_layers && recipe.options.candidate_layers_size() == 0);
}

// Layers to measure at, ascending.
absl::StatusOr<std::vector<int64_t>> ChooseLayers(const FitRecipe& recipe, int64_t num_layers) {
  const methods::v1::FitOptions& options = recipe.options;
  std::vector<int64_t> layers(options.layers().begin(), options.layers().end());
  const char* field = "method_config.fit.layers";
  if (layers.empty() && options.candidate_layers_size() > 0) {
    layers.assign(options.candidate_layers().begin(), options.candidate_layers().end());
    field = "method_config.fit.candidate_layers";
  }
  if (layers.empty() && recipe.all_layers) {
    for (int64_t layer = 0; layer < num_layers; ++layer) layers.push_back(layer);
  }
  if (layers.empty()) {
    for (double depth : kCandidateDepths) {
      // Never the last block where there is another: there, steering is a constant shift of the logits.
      const auto layer = static_cast<int64_t>(depth * static_cast<double>(num_layers) + 1e-9);
      layers.push_back(std::max<int64_t>(0, std::min(layer, num_layers - 2)));
    }
  }
  std::sort(layers.begin(), layers.end());
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  if (layers.back() >= num_layers) {
    return FieldError({{field, absl::StrCat("block ", layers.back(), " does not exist, the model has ", num_layers)}});
  }
  return layers;
}

// For a preview, which does not run.
class NoJob final : public JobContext {
 public:
  absl::Status Checkpoint() override { return absl::OkStatus(); }
  void Report(const JobProgress&) override {}
  absl::Status SavePartial(std::string_view, std::string_view) override { return absl::OkStatus(); }
  absl::StatusOr<std::optional<std::string>> LoadPartial(std::string_view) override { return std::nullopt; }
};

}  // namespace

std::vector<DirectionSet> CandidatesOf(const FitContext& context, std::vector<LayerDirection> directions) {
  std::vector<DirectionSet> candidates;
  if (!context.together) {
    for (LayerDirection& direction : directions) candidates.push_back({std::move(direction)});
    return candidates;
  }
  if (StrengthModeOf(context.options) == StrengthMode::kRelative) {
    for (LayerDirection& direction : directions) direction.weight /= static_cast<float>(directions.size());
  }
  candidates.push_back(std::move(directions));
  return candidates;
}

absl::StatusOr<FitPairs> PrepareForFit(const methods::v1::FitOptions& options, const FitInput& input,
                                       const ModelProbe& probe, ProgressMeter& progress, JobContext& job) {
  TRIMTAB_ASSIGN_OR_RETURN(FitPairs pairs, PreparePairs(options, input, probe, [&] { return job.Checkpoint(); }));
  for (const UnusablePair& pair : pairs.unusable) progress.Fail(pair.item, pair.reason);
  return pairs;
}

FitPreview PreviewOf(const FitPairs& pairs) {
  return {.training = static_cast<int64_t>(pairs.training.size()),
          .validation = static_cast<int64_t>(pairs.validation.size()),
          .held_out = static_cast<int64_t>(pairs.held_out.size()),
          .unusable = pairs.unusable,
          .objective = std::string(MarginKindName(pairs.kind))};
}

absl::StatusOr<FitResult> RunFit(const FitRecipe& recipe, const FitInput& input, ModelProbe& probe, JobContext& job) {
  if (recipe.options.has_batch_tokens()) probe.set_batch_tokens(recipe.options.batch_tokens());
  ProgressMeter progress(job, static_cast<int64_t>(input.pairs.size()));
  progress.Start(JobPhase::kAttributing);
  TRIMTAB_ASSIGN_OR_RETURN(const FitPairs pairs, PrepareForFit(recipe.options, input, probe, progress, job));
  TRIMTAB_ASSIGN_OR_RETURN(const std::unique_ptr<FitRun> run, FitRun::Create(recipe, pairs, probe, progress, job));
  progress.set_total_cost(run->SearchCost() + run->FinishCost());
  progress.Add(0, static_cast<int64_t>(input.pairs.size() - pairs.training.size()));
  TRIMTAB_RETURN_IF_ERROR(run->Search());
  progress.CompletePairs();
  return run->Finish();
}

absl::StatusOr<FitCost> CostOfFit(const FitRecipe& recipe, const FitPairs& pairs, const ModelProbe& probe) {
  NoJob job;
  ProgressMeter progress(job, 0);
  ModelProbe own = probe;
  TRIMTAB_ASSIGN_OR_RETURN(const std::unique_ptr<FitRun> run, FitRun::Create(recipe, pairs, own, progress, job));
  return FitCost{.search = run->SearchCost(), .finish = run->FinishCost()};
}

absl::StatusOr<FitPreview> PreviewFit(const FitRecipe& recipe, const FitInput& input, const ModelProbe& probe) {
  TRIMTAB_ASSIGN_OR_RETURN(const FitPairs pairs, PreparePairs(recipe.options, input, probe));
  TRIMTAB_ASSIGN_OR_RETURN(const FitCost cost, CostOfFit(recipe, pairs, probe));
  FitPreview preview = PreviewOf(pairs);
  preview.rows = cost.search + cost.finish;
  return preview;
}

FitRun::FitRun(const FitRecipe& recipe, const FitPairs& pairs, std::vector<int64_t> layers, ModelProbe& probe,
               ProgressMeter& progress, JobContext& job)
    : recipe_(recipe),
      pairs_(pairs),
      layers_(std::move(layers)),
      probe_(probe),
      progress_(progress),
      job_(job),
      source_(recipe.source()) {}

absl::StatusOr<std::unique_ptr<FitRun>> FitRun::Create(const FitRecipe& recipe, const FitPairs& pairs,
                                                       ModelProbe& probe, ProgressMeter& progress, JobContext& job) {
  TRIMTAB_ASSIGN_OR_RETURN(std::vector<int64_t> layers, ChooseLayers(recipe, probe.num_layers()));
  return std::unique_ptr<FitRun>(new FitRun(recipe, pairs, std::move(layers), probe, progress, job));
}

FitContext FitRun::Context() const {
  return {.options = recipe_.options,
          .site = recipe_.site,
          .pairs = pairs_,
          .layers = layers_,
          .together = SteersTogether(recipe_),
          .probe = probe_,
          .progress = progress_,
          .job = job_};
}

std::vector<const EncodedPair*> FitRun::ControlPairs() const {
  std::vector<const EncodedPair*> control = pairs_.held_out.empty() ? ValidationPairs(pairs_) : HeldOutPairs(pairs_);
  if (control.size() > kMaxControlPairs) control.resize(kMaxControlPairs);
  return control;
}

double FitRun::SearchCost() const {
  const size_t candidates = SteersTogether(recipe_) ? 1 : layers_.size();
  return source_->Cost(Context()) + trimtab::SearchCost(recipe_, probe_, candidates, ValidationPairs(pairs_));
}

double FitRun::FinishCost() const {
  return SteeredCost(recipe_, HeldOutPairs(pairs_), 2) +
         SteeredCost(recipe_, ControlPairs(), static_cast<size_t>(recipe_.options.random_directions()) + 1);
}

absl::Status FitRun::Search() {
  const FitContext context = Context();
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<DirectionSet> candidates, source_->Candidates(context));
  progress_.Start(JobPhase::kValidating);
  TRIMTAB_ASSIGN_OR_RETURN(search_, SearchDirections(recipe_, probe_, candidates, ValidationPairs(pairs_),
                                                     pairs_.report_kind, progress_, job_));
  return absl::OkStatus();
}

absl::StatusOr<FitResult> FitRun::Finish() {
  const FitContext context = Context();
  for (LayerDirection& direction : search_.directions) {
    direction.bootstrap_stability = source_->Stability(context, direction);
    TRIMTAB_RETURN_IF_ERROR(job_.Checkpoint());
  }
  FitResult result;
  FitReport& report = result.report;
  TRIMTAB_ASSIGN_OR_RETURN(result.vector, MakeVector(recipe_, probe_, search_.directions, search_.strength));
  if (!pairs_.held_out.empty()) {
    const std::vector<const EncodedPair*> held_out = HeldOutPairs(pairs_);
    const ApplyTo apply_to = ApplyToOf(recipe_.options);
    const std::vector<SteeringSetting> settings = {
        {.apply_to = apply_to}, {.vector = result.vector, .strength = search_.strength, .apply_to = apply_to}};
    TRIMTAB_ASSIGN_OR_RETURN(const auto margins, MeasureMargins(probe_, held_out, pairs_.report_kind, settings, job_));
    std::vector<double> before, after;
    for (const std::vector<double>& pair : margins) {
      before.push_back(pair[0]);
      after.push_back(pair[1]);
    }
    report.held_out = SummarizeEffect(before, after);
    progress_.Add(SteeredCost(recipe_, held_out, settings.size()));
  }
  if (recipe_.options.random_directions() > 0) {
    TRIMTAB_ASSIGN_OR_RETURN(
        const std::vector<double> gains,
        RandomControl(recipe_, probe_, search_.directions, search_.strength, ControlPairs(), pairs_.report_kind, job_));
    report.random_directions = static_cast<int64_t>(gains.size());
    report.random_gain_max = static_cast<float>(*std::max_element(gains.begin(), gains.end()));
    report.random_gain_mean = static_cast<float>(MeanWithInterval(gains).mean);
  }
  report.objective = std::string(MarginKindName(pairs_.kind));
  report.search = search_.points;
  report.validation = search_.validation;
  report.kl_at_default = static_cast<float>(search_.kl);
  report.resolved_config = recipe_.resolved_config;
  report.warnings = FitWarnings({.report = report,
                                 .directions = search_.directions,
                                 .left_out = pairs_.left_out,
                                 .training = static_cast<int64_t>(pairs_.training.size()),
                                 .reversed = search_.reversed,
                                 .over_budget = search_.over_budget,
                                 .validated_on_training = pairs_.validation.empty(),
                                 .has_neutral_text = probe_.has_neutral_text()});
  source_->Describe(context, search_.directions, report);
  progress_.Add(SteeredCost(recipe_, ControlPairs(), static_cast<size_t>(recipe_.options.random_directions()) + 1));
  return result;
}

}  // namespace trimtab
