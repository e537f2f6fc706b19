#include "steering/methods/fit_options.h"

#include <cstdint>
#include <set>

#include "trimtab/v1/common.pb.h"

namespace trimtab {
namespace {

using methods::v1::FitOptions;

FitOptions UsualOptions() {
  FitOptions usual;
  usual.set_strength_mode(methods::v1::STRENGTH_MODE_RELATIVE);
  usual.set_norm(methods::v1::NORM_PRESERVE);
  usual.set_apply_to(v1::APPLY_TO_FROM_LAST_PROMPT);
  usual.set_validation_fraction(0.2f);
  usual.set_max_kl(0.2f);
  usual.set_seed(0);
  usual.set_max_pair_tokens(1024);
  usual.set_random_directions(20);
  return usual;
}

// Merging appends to repeated fields: `over` replaces them.
void Overlay(const FitOptions& over, FitOptions& options) {
  if (over.layers_size() > 0) options.clear_layers();
  if (over.candidate_layers_size() > 0) options.clear_candidate_layers();
  if (over.candidate_strengths_size() > 0) options.clear_candidate_strengths();
  options.MergeFrom(over);
}

void CheckLayers(ConfigChecker& checker, std::string_view field,
                 const google::protobuf::RepeatedField<int32_t>& layers) {
  const std::set<int32_t> distinct(layers.begin(), layers.end());
  checker.Require(distinct.size() == static_cast<size_t>(layers.size()), field, "must name each block once");
  checker.Require(distinct.empty() || *distinct.begin() >= 0, field, "must not be negative");
}

void Check(const FitOptions& c, ConfigChecker& checker) {
  checker.Require(methods::v1::ObjectiveKind_IsValid(c.objective()), "fit.objective", "is unknown");
  checker.Require(methods::v1::StrengthMode_IsValid(c.strength_mode()), "fit.strength_mode", "is unknown");
  checker.Require(methods::v1::Norm_IsValid(c.norm()), "fit.norm", "is unknown");
  checker.Require(v1::ApplyTo_IsValid(c.apply_to()), "fit.apply_to", "is unknown");
  CheckLayers(checker, "fit.layers", c.layers());
  CheckLayers(checker, "fit.candidate_layers", c.candidate_layers());
  checker.Require(c.validation_fraction() >= 0 && c.validation_fraction() <= 0.5f, "fit.validation_fraction",
                  "must be 0 to 0.5");
  checker.Require(c.candidate_strengths_size() <= 32, "fit.candidate_strengths", "must have at most 32 entries");
  for (float strength : c.candidate_strengths()) {
    checker.Require(strength > 0 && strength <= 1000, "fit.candidate_strengths",
                    "must each be above 0 and at most 1000");
  }
  checker.AboveZero("fit.max_kl", c.max_kl(), 10);
  checker.Range("fit.max_pair_tokens", c.max_pair_tokens(), 8, 65536);
  if (c.has_batch_tokens()) checker.Range("fit.batch_tokens", c.batch_tokens(), 64, 1048576);
  checker.Range("fit.random_directions", c.random_directions(), 0, 100);
}

}  // namespace

FitOptions ResolveFitOptions(const FitOptions& given, const FitOptions& defaults, ConfigChecker& checker) {
  FitOptions resolved = UsualOptions();
  Overlay(defaults, resolved);
  Overlay(given, resolved);
  Check(resolved, checker);
  return resolved;
}

ApplyTo ApplyToOf(const FitOptions& c) { return static_cast<ApplyTo>(c.apply_to()); }

StrengthMode StrengthModeOf(const FitOptions& c) {
  return c.strength_mode() == methods::v1::STRENGTH_MODE_ABSOLUTE ? StrengthMode::kAbsolute : StrengthMode::kRelative;
}

}  // namespace trimtab
