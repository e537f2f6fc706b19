#include "steering/methods/direction_search.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "server/base/status_macros.h"
#include "steering/attribution/random.h"
#include "steering/methods/effect.h"
#include "steering/methods/fit_options.h"
#include "steering/methods/measurements.h"

namespace trimtab {
namespace {

constexpr float kFirstRelative = 0.05f, kFirstAbsolute = 5.0f;
constexpr float kMinRelative = 0.005f, kMaxRelative = 0.3f;
constexpr float kMinAbsolute = 1e-3f, kMaxAbsolute = 1000.0f;
constexpr int kMaxKlSteps = 4;
constexpr double kKlLow = 0.85, kKlHigh = 1.02;  // of the budget: close enough
constexpr float kRelativeLimit = 0.5f;           // least max_strength of relative vectors
constexpr float kLimitOverDefault = 4.0f;
constexpr double kExpectedKlSteps = 2.3;

// One strength of one candidate.
struct Trial {
  size_t candidate = 0;
  float strength = 0;
  double kl = 0;
  double gain = 0;
};

bool Relative(const FitRecipe& recipe) { return StrengthModeOf(recipe.options) == StrengthMode::kRelative; }

Operation OperationOf(const FitRecipe& recipe) {
  return recipe.options.norm() == methods::v1::NORM_NONE ? Operation::kAdd : recipe.preserving;
}

// What is tried first. An absolute edit's norm is strength times weight.
float FirstStrength(const FitRecipe& recipe, const DirectionSet& directions) {
  if (Relative(recipe)) return kFirstRelative;
  float weight = 0;
  for (const LayerDirection& layer : directions) weight += layer.weight / static_cast<float>(directions.size());
  return std::clamp(kFirstAbsolute / std::max(weight, 1e-6f), kMinAbsolute, kMaxAbsolute);
}

SteeringSetting Setting(const FitRecipe& recipe, std::shared_ptr<const SteeringVector> vector, float strength) {
  return {.vector = std::move(vector), .strength = strength, .apply_to = ApplyToOf(recipe.options)};
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

// The strength at which `vector` costs the budget. The divergence grows about with the square of the strength.
absl::StatusOr<Trial> FindStrength(const FitRecipe& recipe, ModelProbe& probe, size_t candidate,
                                   const std::shared_ptr<const SteeringVector>& vector, ProgressMeter& progress,
                                   JobContext& job) {
  const bool relative = Relative(recipe);
  const float low = relative ? kMinRelative : kMinAbsolute, high = relative ? kMaxRelative : kMaxAbsolute;
  float strength = vector->spec().default_strength;
  const float max_kl = recipe.options.max_kl();
  Trial best{.candidate = candidate, .kl = -1};
  for (int step = 0; step < kMaxKlSteps; ++step) {
    TRIMTAB_ASSIGN_OR_RETURN(const double kl, MeasureNeutralKl(probe, Setting(recipe, vector, strength), job));
    progress.Add(static_cast<double>(probe.neutral_tokens()));
    // Keep the strongest within the budget; without one, the weakest.
    const bool fits = kl <= max_kl * kKlHigh;
    const bool best_fits = best.kl >= 0 && best.kl <= max_kl * kKlHigh;
    if (best.kl < 0 || (fits && (!best_fits || strength > best.strength)) ||
        (!fits && !best_fits && strength < best.strength)) {
      best.strength = strength;
      best.kl = kl;
    }
    const double ratio = kl / max_kl;
    if (ratio >= kKlLow && ratio <= kKlHigh) break;
    const double factor = std::clamp(std::sqrt(0.95 / std::max(ratio, 1e-4)), 0.1, 10.0);
    const float next = std::clamp(static_cast<float>(strength * factor), low, high);
    if (next == strength) break;
    strength = next;
  }
  return best;
}

absl::StatusOr<std::vector<Trial>> TrialsOf(const FitRecipe& recipe, ModelProbe& probe, size_t candidate,
                                            const std::shared_ptr<const SteeringVector>& vector,
                                            ProgressMeter& progress, JobContext& job) {
  if (recipe.options.candidate_strengths_size() == 0) {
    if (!probe.has_neutral_text()) {
      return std::vector<Trial>{{.candidate = candidate, .strength = vector->spec().default_strength}};
    }
    TRIMTAB_ASSIGN_OR_RETURN(const Trial trial, FindStrength(recipe, probe, candidate, vector, progress, job));
    return std::vector<Trial>{trial};
  }
  std::vector<float> strengths(recipe.options.candidate_strengths().begin(),
                               recipe.options.candidate_strengths().end());
  std::sort(strengths.begin(), strengths.end());
  std::vector<Trial> trials;
  for (float strength : strengths) {
    Trial trial{.candidate = candidate, .strength = strength};
    if (probe.has_neutral_text()) {
      TRIMTAB_ASSIGN_OR_RETURN(trial.kl, MeasureNeutralKl(probe, Setting(recipe, vector, strength), job));
      progress.Add(static_cast<double>(probe.neutral_tokens()));
      // Stronger ones cost more still; one beyond the budget is kept for the operator to see.
      if (trial.kl > recipe.options.max_kl() && !trials.empty()) break;
    }
    trials.push_back(trial);
  }
  return trials;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const SteeringVector>> MakeVector(const FitRecipe& recipe, const ModelProbe& probe,
                                                                 DirectionSet directions, float strength) {
  const float limit = kLimitOverDefault * strength;
  return SteeringVector::Create({.model_fingerprint = probe.fingerprint(),
                                 .method = recipe.method,
                                 .site = recipe.site,
                                 .operation = OperationOf(recipe),
                                 .strength_mode = StrengthModeOf(recipe.options),
                                 .apply_to = ApplyToOf(recipe.options),
                                 .default_strength = strength,
                                 .max_strength = Relative(recipe) ? std::max(limit, kRelativeLimit) : limit,
                                 .hidden_size = probe.hidden_size(),
                                 .layers = std::move(directions)});
}

absl::StatusOr<SearchResult> SearchDirections(const FitRecipe& recipe, ModelProbe& probe,
                                              const std::vector<DirectionSet>& candidates,
                                              const std::vector<const EncodedPair*>& validation, MarginKind kind,
                                              ProgressMeter& progress, JobContext& job) {
  std::vector<Trial> trials;
  std::vector<std::shared_ptr<const SteeringVector>> vectors;
  for (size_t c = 0; c < candidates.size(); ++c) {
    TRIMTAB_ASSIGN_OR_RETURN(vectors.emplace_back(),
                             MakeVector(recipe, probe, candidates[c], FirstStrength(recipe, candidates[c])));
    TRIMTAB_ASSIGN_OR_RETURN(const std::vector<Trial> own, TrialsOf(recipe, probe, c, vectors[c], progress, job));
    trials.insert(trials.end(), own.begin(), own.end());
  }

  // Margins of the validation pairs: unsteered, then under each trial.
  std::vector<std::vector<double>> margins;  // [trial + 1][pair]
  const auto measure = [&](float sign) -> absl::Status {
    std::vector<SteeringSetting> settings = {{}};
    for (const Trial& trial : trials) {
      settings.push_back(Setting(recipe, vectors[trial.candidate], sign * trial.strength));
    }
    TRIMTAB_ASSIGN_OR_RETURN(const auto by_pair, MeasureMargins(probe, validation, kind, settings, job));
    margins.assign(settings.size(), {});
    for (const std::vector<double>& pair : by_pair) {
      for (size_t s = 0; s < settings.size(); ++s) margins[s].push_back(pair[s]);
    }
    for (size_t t = 0; t < trials.size(); ++t) trials[t].gain = Mean(margins[t + 1]) - Mean(margins[0]);
    progress.Add(SteeredCost(recipe, validation, settings.size()));
    return absl::OkStatus();
  };
  const auto fits = [&](const Trial& trial) { return trial.kl <= recipe.options.max_kl() * kKlHigh; };
  // Within the budget the largest gain; if nothing is within it, the cheapest.
  const auto best_of = [&]() {
    size_t best = 0;
    for (size_t t = 1; t < trials.size(); ++t) {
      const bool better = fits(trials[t]) != fits(trials[best]) ? fits(trials[t])
                          : fits(trials[t])                     ? trials[t].gain > trials[best].gain
                                                                : trials[t].kl < trials[best].kl;
      if (better) best = t;
    }
    return best;
  };

  SearchResult result;
  const auto keep_points = [&](float sign) {
    for (const Trial& trial : trials) {
      result.points.push_back({.layer = candidates[trial.candidate].front().layer,
                               .strength = sign * trial.strength,
                               .margin_gain = static_cast<float>(trial.gain),
                               .kl = static_cast<float>(trial.kl)});
    }
  };
  TRIMTAB_RETURN_IF_ERROR(measure(1));
  keep_points(1);
  size_t best = best_of();
  if (trials[best].gain <= 0) {
    const std::vector<std::vector<double>> forward = margins;
    const std::vector<Trial> forward_trials = trials;
    TRIMTAB_RETURN_IF_ERROR(measure(-1));
    keep_points(-1);
    const size_t reversed = best_of();
    result.reversed = trials[reversed].gain > 0;
    if (result.reversed) {
      best = reversed;
    } else {
      margins = forward;
      trials = forward_trials;
    }
  }
  result.chosen = trials[best].candidate;
  result.directions = candidates[result.chosen];
  if (result.reversed) {
    for (LayerDirection& layer : result.directions) {
      for (float& x : layer.direction) x = -x;
      layer.cosine_to_mean = -layer.cosine_to_mean;
      layer.cosine_to_margin_gradient = -layer.cosine_to_margin_gradient;
    }
  }
  result.strength = trials[best].strength;
  result.kl = trials[best].kl;
  if (result.reversed && probe.has_neutral_text()) {
    TRIMTAB_ASSIGN_OR_RETURN(result.kl,
                             MeasureNeutralKl(probe, Setting(recipe, vectors[result.chosen], -result.strength), job));
    trials[best].kl = result.kl;
  }
  result.over_budget = !fits(trials[best]);
  result.validation = SummarizeEffect(margins[0], margins[best + 1]);
  for (size_t p = 0; p < validation.size(); ++p) result.gains.push_back(margins[best + 1][p] - margins[0][p]);
  return result;
}

absl::StatusOr<std::vector<double>> RandomControl(const FitRecipe& recipe, const ModelProbe& probe,
                                                  const DirectionSet& directions, float strength,
                                                  const std::vector<const EncodedPair*>& pairs, MarginKind kind,
                                                  JobContext& job) {
  std::vector<SteeringSetting> settings = {{}};
  for (int r = 0; r < recipe.options.random_directions(); ++r) {
    DirectionSet random = directions;
    for (size_t l = 0; l < random.size(); ++l) {
      // Streams apart from those of attribution and resampling.
      random[l].direction = RandomUnitVector(random[l].direction.size(), recipe.options.seed(),
                                             (uint64_t{1} << 32) + static_cast<uint64_t>(r) * random.size() + l);
    }
    TRIMTAB_ASSIGN_OR_RETURN(auto vector, MakeVector(recipe, probe, std::move(random), strength));
    settings.push_back(Setting(recipe, std::move(vector), strength));
  }
  TRIMTAB_ASSIGN_OR_RETURN(const auto margins, MeasureMargins(probe, pairs, kind, settings, job));
  std::vector<double> gains(settings.size() - 1, 0.0);
  for (const std::vector<double>& pair : margins) {
    for (size_t r = 0; r < gains.size(); ++r) gains[r] += (pair[r + 1] - pair[0]) / static_cast<double>(margins.size());
  }
  return gains;
}

double SearchCost(const FitRecipe& recipe, const ModelProbe& probe, size_t candidates,
                  const std::vector<const EncodedPair*>& validation) {
  const double strengths =
      recipe.options.candidate_strengths_size() > 0 ? recipe.options.candidate_strengths_size() : kExpectedKlSteps;
  const double settings = recipe.options.candidate_strengths_size() > 0 ? recipe.options.candidate_strengths_size() : 1;
  const auto count = static_cast<double>(candidates);
  return static_cast<double>(probe.neutral_tokens()) * strengths * count +
         SteeredCost(recipe, validation, static_cast<size_t>(settings * count) + 1);
}

double SteeredCost(const FitRecipe& recipe, const std::vector<const EncodedPair*>& pairs, size_t settings) {
  double rows = 0;
  for (const EncodedPair* pair : pairs) {
    const auto tokens = static_cast<double>(pair->tokens()), prompt = static_cast<double>(pair->prompt.size());
    const double shared = ApplyToOf(recipe.options) == ApplyTo::kAll ? 0 : prompt;
    rows += shared + static_cast<double>(settings) * (tokens - shared);
  }
  return rows;
}

}  // namespace trimtab
