#include "steering/methods/fit_warnings.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace trimtab {
namespace {

// Below these, agreement of the pairs predicts that steering is unreliable (steering.md A6).
constexpr float kMinCosineToMean = 0.5f, kMinStability = 0.7f;
constexpr float kMaxAntiSteerable = 0.4f;
constexpr int64_t kFewPairs = 20;

void AddEffect(const FitFindings& f, std::vector<std::string>& warnings) {
  const FitReport& report = f.report;
  if (report.validation.margin_gain <= 0) {
    warnings.push_back("Steering did not raise the margin on the pairs that chose layer and strength.");
  }
  const bool held_out = report.held_out.pairs > 0;
  if (!held_out) {
    warnings.push_back("No held-out pairs were given: the effect on unseen pairs is not known.");
  } else if (report.held_out.ci_low <= 0) {
    warnings.push_back(absl::StrFormat(
        "On the %d held-out pairs the change of the margin (%.3f nats per token) is not distinguishable from zero or "
        "is "
        "negative (95 %% interval %.3f to %.3f).",
        report.held_out.pairs, report.held_out.margin_gain, report.held_out.ci_low, report.held_out.ci_high));
  }
  const EffectSummary& effect = held_out ? report.held_out : report.validation;
  if (effect.pairs > 0 && effect.anti_steerable_share >= kMaxAntiSteerable) {
    warnings.push_back(absl::StrFormat("Steering moves %.0f %% of the %d %s pairs against the objective.",
                                       100 * effect.anti_steerable_share, effect.pairs,
                                       held_out ? "held-out" : "validation"));
  }
  const float gain = effect.margin_gain;
  if (report.random_directions > 0 && gain <= report.random_gain_max) {
    warnings.push_back(absl::StrFormat(
        "The best of %d random directions does as well (%.3f against %.3f nats per token at the same strength).",
        report.random_directions, report.random_gain_max, gain));
  }
}

}  // namespace

std::vector<std::string> FitWarnings(const FitFindings& f) {
  std::vector<std::string> warnings;
  AddEffect(f, warnings);
  if (f.reversed) {
    warnings.push_back("The direction was turned round: as fitted, it lowered the margin on the validation pairs.");
  }
  if (f.validated_on_training) {
    warnings.push_back(
        "Layer and strength were chosen on the training pairs themselves: there are too few pairs to keep some apart.");
  }
  if (!f.has_neutral_text) {
    warnings.push_back("The server has no neutral text: what steering costs elsewhere was not measured.");
  } else if (f.over_budget) {
    warnings.push_back(absl::StrFormat(
        "No strength that was tried stays within max_kl: the default costs %.3f nats per token of neutral text.",
        f.report.kl_at_default));
  }
  if (f.left_out > 0) warnings.push_back(absl::StrCat(f.left_out, " pairs could not be used."));
  if (f.training < kFewPairs) {
    warnings.push_back(absl::StrCat("Only ", f.training, " training pairs: expect a rough direction."));
  }
  const auto unstable = [](const LayerDirection& d) { return d.bootstrap_stability < kMinStability; };
  if (std::any_of(f.directions.begin(), f.directions.end(), unstable)) {
    warnings.push_back("The direction changes with the choice of pairs (stability below 0.7): more pairs would help.");
  }
  return warnings;
}

std::vector<std::string> DisagreementWarnings(const std::vector<LayerDirection>& directions) {
  const auto disagrees = [](const LayerDirection& d) { return d.cosine_to_mean < kMinCosineToMean; };
  if (std::none_of(directions.begin(), directions.end(), disagrees)) return {};
  return {"The pairs disagree about the direction (cosine to their mean below 0.5)."};
}

}  // namespace trimtab
