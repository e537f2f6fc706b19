#include "steering/methods/auto.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/base/status_macros.h"
#include "steering/methods/effect.h"
#include "steering/methods/fit_options.h"
#include "steering/methods/fit_pipeline.h"
#include "trimtab/methods/v1/auto.pb.h"

namespace trimtab {
namespace {

using methods::v1::AutoConfig;
using methods::v1::FitOptions;

constexpr double kAsGood = 0.95;  // share of the largest gain with which an earlier method is taken
constexpr float kValidationFraction = 0.3f;

// What the configuration names, or the defaults; checked.
absl::StatusOr<std::vector<FitRecipe>> RecipesOf(const AutoConfig& config, const AutoMethod::Choice& choice) {
  ConfigChecker checker;
  FitOptions fit = config.fit();
  if (!fit.has_validation_fraction()) fit.set_validation_fraction(kValidationFraction);
  ResolveFitOptions(fit, {}, checker);
  std::vector<std::string> names(config.methods().begin(), config.methods().end());
  checker.Require(std::set<std::string>(names.begin(), names.end()).size() == names.size(), "methods",
                  "must name each method once");
  if (names.empty()) names = choice.defaults;
  std::vector<std::string> known;
  for (const PipelineMethod& method : choice.candidates) known.push_back(method.info.id);
  std::vector<FitRecipe> recipes;
  for (size_t i = 0; i < names.size(); ++i) {
    const auto method = std::find(known.begin(), known.end(), names[i]);
    checker.Require(method != known.end(), absl::StrCat("methods[", i, "]"),
                    absl::StrCat("must be one of ", absl::StrJoin(known, ", ")));
    if (!checker.status().ok()) continue;
    TRIMTAB_ASSIGN_OR_RETURN(recipes.emplace_back(),
                             choice.candidates[static_cast<size_t>(method - known.begin())].recipe_of_options(fit));
  }
  TRIMTAB_RETURN_IF_ERROR(checker.status());
  return recipes;
}

// A job goes on when one method has nothing to offer, but not when it was told to stop.
bool StopsTheJob(const absl::Status& status) {
  return !absl::IsInvalidArgument(status) && !absl::IsInternal(status) && !absl::IsFailedPrecondition(status);
}

MethodTrial TrialOf(const FitRecipe& recipe, const SearchResult& search) {
  MethodTrial trial{.method = recipe.method,
                    .layer = search.directions.front().layer,
                    .strength = search.strength,
                    .validation = search.validation,
                    .kl = static_cast<float>(search.kl)};
  if (search.kl > 0) trial.efficiency = static_cast<float>(search.validation.margin_gain / search.kl);
  return trial;
}

// Index of the run to take: of those within the budget (of all, if none is) the first that is as good as the best.
size_t Choose(const std::vector<std::unique_ptr<FitRun>>& runs) {
  const bool any_fits =
      std::any_of(runs.begin(), runs.end(), [](const auto& run) { return run && !run->search().over_budget; });
  const auto counts = [&](const auto& run) { return run && (!any_fits || !run->search().over_budget); };
  double best = -std::numeric_limits<double>::infinity();
  for (const auto& run : runs) {
    if (counts(run)) best = std::max<double>(best, run->search().validation.margin_gain);
  }
  const double enough = best > 0 ? kAsGood * best : best;
  for (size_t r = 0; r < runs.size(); ++r) {
    if (counts(runs[r]) && runs[r]->search().validation.margin_gain >= enough) return r;
  }
  return 0;
}

std::string Signed(const MeanInterval& gain) {
  return absl::StrFormat("%+.3f nats per token (95 %% interval %+.3f to %+.3f)", gain.mean, gain.low, gain.high);
}

// Why `chosen` was taken, against the best of the others.
std::string Explain(const std::vector<std::unique_ptr<FitRun>>& runs, size_t chosen) {
  const SearchResult& search = runs[chosen]->search();
  std::string text = absl::StrFormat(
      "\"%s\" was chosen: on the %d validation pairs it gains %s at a divergence of "
      "%.3f nats per token of neutral text.",
      runs[chosen]->recipe().method, search.validation.pairs, Signed(MeanWithInterval(search.gains)), search.kl);
  std::optional<size_t> next;
  for (size_t r = 0; r < runs.size(); ++r) {
    if (r == chosen || !runs[r] || runs[r]->search().over_budget != search.over_budget) continue;
    if (!next || runs[r]->search().validation.margin_gain > runs[*next]->search().validation.margin_gain) next = r;
  }
  if (!next) return absl::StrCat(text, " No other method was there to compare with.");
  const SearchResult& other = runs[*next]->search();
  std::vector<double> leads;
  for (size_t p = 0; p < search.gains.size(); ++p) leads.push_back(search.gains[p] - other.gains[p]);
  const MeanInterval lead = MeanWithInterval(leads);
  absl::StrAppendFormat(&text, " Next comes \"%s\" with %s; the difference, pair by pair, is %s and ",
                        runs[*next]->recipe().method, Signed(MeanWithInterval(other.gains)), Signed(lead));
  if (lead.mean < 0) {
    absl::StrAppend(&text, "small: of methods that are as good the one that stands first is taken.");
  } else {
    absl::StrAppend(&text, lead.low > 0 ? "clear of chance." : "not clear of chance.");
  }
  return text;
}

}  // namespace

absl::StatusOr<FitResult> AutoMethod::Fit(const FitInput& input, ModelProbe& probe, JobContext& job) const {
  const FitOptions& options = recipes_.front().options;
  if (options.has_batch_tokens()) probe.set_batch_tokens(options.batch_tokens());
  ProgressMeter progress(job, static_cast<int64_t>(input.pairs.size()));
  progress.Start(JobPhase::kAttributing);
  TRIMTAB_ASSIGN_OR_RETURN(const FitPairs pairs, PrepareForFit(options, input, probe, progress, job));
  std::vector<std::unique_ptr<FitRun>> runs;
  double cost = 0;
  for (const FitRecipe& recipe : recipes_) {
    TRIMTAB_ASSIGN_OR_RETURN(runs.emplace_back(), FitRun::Create(recipe, pairs, probe, progress, job));
    cost += runs.back()->SearchCost();
  }
  progress.set_total_cost(cost + runs.front()->FinishCost());
  progress.Add(0, static_cast<int64_t>(input.pairs.size() - pairs.training.size()));

  std::vector<MethodTrial> trials;
  absl::Status first_error;
  for (size_t r = 0; r < runs.size(); ++r) {
    const absl::Status status = runs[r]->Search();
    if (status.ok()) {
      trials.push_back(TrialOf(recipes_[r], runs[r]->search()));
      continue;
    }
    if (StopsTheJob(status)) return status;
    first_error.Update(status);
    trials.push_back({.method = recipes_[r].method, .error = std::string(status.message())});
    runs[r].reset();
  }
  if (std::none_of(runs.begin(), runs.end(), [](const auto& run) { return run != nullptr; })) return first_error;
  progress.CompletePairs();
  const size_t chosen = Choose(runs);
  trials[chosen].chosen = true;
  TRIMTAB_ASSIGN_OR_RETURN(FitResult result, runs[chosen]->Finish());
  result.report.trials = std::move(trials);
  result.report.choice = Explain(runs, chosen);
  return result;
}

absl::StatusOr<FitPreview> AutoMethod::Preview(const FitInput& input, const ModelProbe& probe) const {
  TRIMTAB_ASSIGN_OR_RETURN(const FitPairs pairs, PreparePairs(recipes_.front().options, input, probe));
  FitPreview preview = PreviewOf(pairs);
  for (const FitRecipe& recipe : recipes_) {
    TRIMTAB_ASSIGN_OR_RETURN(const FitCost cost, CostOfFit(recipe, pairs, probe));
    preview.rows += cost.search;
    if (&recipe == &recipes_.front()) preview.rows += cost.finish;
  }
  return preview;
}

MethodRegistry::Factory AutoMethod::Factory(Choice choice) {
  return [choice =
              std::move(choice)](const google::protobuf::Any* any) -> absl::StatusOr<std::unique_ptr<SteeringMethod>> {
    TRIMTAB_ASSIGN_OR_RETURN(const AutoConfig config, UnpackConfig<AutoConfig>("auto", any));
    TRIMTAB_ASSIGN_OR_RETURN(std::vector<FitRecipe> recipes, RecipesOf(config, choice));
    return std::make_unique<AutoMethod>(std::move(recipes));
  };
}

MethodInfo AutoMethod::Info(const Choice& choice) {
  AutoConfig defaults;
  defaults.mutable_methods()->Assign(choice.defaults.begin(), choice.defaults.end());
  ConfigChecker checker;
  FitOptions fit;
  fit.set_validation_fraction(kValidationFraction);
  *defaults.mutable_fit() = ResolveFitOptions(fit, {}, checker);
  std::set<std::string> sites;
  for (const PipelineMethod& method : choice.candidates)
    sites.insert(method.info.sites.begin(), method.info.sites.end());
  return {.id = "auto",
          .display_name = "Best by validation",
          .description =
              "Fits several methods on the same pairs and gives the vector of the one that gains most on the "
              "validation pairs at the same cost on neutral text.",
          .config_type = AutoConfig::descriptor()->full_name(),
          .default_config = defaults.SerializeAsString(),
          .sites = {sites.begin(), sites.end()}};
}

}  // namespace trimtab
