#include "steering/methods/grains_config.h"

#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"

namespace trimtab {
namespace {

using methods::v1::GrainsConfig;

class Checker {
 public:
  void Require(bool ok, const char* field, std::string rule) {
    if (!ok) violations_.push_back({absl::StrCat("method_config.", field), std::move(rule)});
  }
  template <typename T>
  void Range(const char* field, T value, T low, T high) {
    Require(value >= low && value <= high, field, absl::StrCat("must be ", low, " to ", high));
  }
  void AboveZero(const char* field, double value, double high) {
    Require(value > 0 && value <= high, field, absl::StrCat("must be above 0 and at most ", high));
  }
  std::vector<FieldViolation> Take() { return std::move(violations_); }

 private:
  std::vector<FieldViolation> violations_;
};

void CheckDistinct(Checker& check, const char* field, const google::protobuf::RepeatedField<int32_t>& layers) {
  const std::set<int32_t> distinct(layers.begin(), layers.end());
  check.Require(distinct.size() == static_cast<size_t>(layers.size()), field, "must name each block once");
  check.Require(distinct.empty() || *distinct.begin() >= 0, field, "must not be negative");
}

std::vector<FieldViolation> Violations(const GrainsConfig& c) {
  Checker check;
  check.Require(GrainsConfig::Preset_IsValid(c.preset()), "preset", "is unknown");
  check.Require(GrainsConfig::ObjectiveKind_IsValid(c.objective()), "objective", "is unknown");
  check.Require(GrainsConfig::AttributionKind_IsValid(c.attribution()), "attribution", "is unknown");
  check.Require(GrainsConfig::Baseline_IsValid(c.baseline()), "baseline", "is unknown");
  check.Require(GrainsConfig::Quadrature_IsValid(c.quadrature()), "quadrature", "is unknown");
  check.Require(GrainsConfig::Mask_IsValid(c.mask()), "mask", "is unknown");
  check.Require(GrainsConfig::DeltaPosition_IsValid(c.delta_position()), "delta_position", "is unknown");
  check.Require(GrainsConfig::Combine_IsValid(c.combine()), "combine", "is unknown");
  check.Require(GrainsConfig::Orientation_IsValid(c.orientation()), "orientation", "is unknown");
  check.Require(GrainsConfig::StrengthMode_IsValid(c.strength_mode()), "strength_mode", "is unknown");
  check.Require(GrainsConfig::Norm_IsValid(c.norm()), "norm", "is unknown");
  check.Require(v1::ApplyTo_IsValid(c.apply_to()), "apply_to", "is unknown");
  check.Range("steps", c.steps(), 1, 512);
  check.Require(c.max_points() == 15 || c.max_points() == 31 || c.max_points() == 63 || c.max_points() == 127,
                "max_points", "must be 15, 31, 63 or 127");
  check.AboveZero("completeness_tolerance", c.completeness_tolerance(), 1);
  check.Range("k", c.k(), 1, 1024);
  check.AboveZero("rho", c.rho(), 1);
  CheckDistinct(check, "layers", c.layers());
  CheckDistinct(check, "candidate_layers", c.candidate_layers());
  check.Require(c.validation_fraction() >= 0 && c.validation_fraction() <= 0.5f, "validation_fraction",
                "must be 0 to 0.5");
  check.Require(c.candidate_strengths_size() <= 32, "candidate_strengths", "must have at most 32 entries");
  for (float strength : c.candidate_strengths()) {
    check.Require(strength > 0 && strength <= 1000, "candidate_strengths", "must each be above 0 and at most 1000");
  }
  check.AboveZero("max_kl", c.max_kl(), 10);
  check.Range("max_pair_tokens", c.max_pair_tokens(), 8, 65536);
  if (c.has_batch_tokens()) check.Range("batch_tokens", c.batch_tokens(), 64, 1048576);
  check.Range("random_directions", c.random_directions(), 0, 100);
  check.Range("rank", c.rank(), 1, 1024);
  return check.Take();
}

// As close to the paper as can be told (steering.md A10).
GrainsConfig PaperFaithful() {
  GrainsConfig c;
  c.set_preset(GrainsConfig::PRESET_PAPER_FAITHFUL);
  c.set_objective(GrainsConfig::OBJECTIVE_KIND_PREF_SUM);
  c.set_attribution(GrainsConfig::ATTRIBUTION_KIND_INTEGRATED_GRADIENTS);
  c.set_quadrature(GrainsConfig::QUADRATURE_GAUSS_LEGENDRE);
  c.set_combine(GrainsConfig::COMBINE_PAPER);
  c.set_orientation(GrainsConfig::ORIENTATION_MEAN_DELTA);
  c.set_strength_mode(GrainsConfig::STRENGTH_MODE_ABSOLUTE);
  c.set_apply_to(v1::APPLY_TO_ALL);
  for (float strength : {5.0f, 10.0f, 20.0f, 40.0f, 80.0f, 100.0f}) c.add_candidate_strengths(strength);
  return c;
}

GrainsConfig Product() {
  GrainsConfig c;
  c.set_preset(GrainsConfig::PRESET_PRODUCT);
  c.set_quadrature(GrainsConfig::QUADRATURE_FEJER2_ADAPTIVE);
  c.set_combine(GrainsConfig::COMBINE_SUBSPACE_GRADIENT);
  c.set_orientation(GrainsConfig::ORIENTATION_MARGIN_GRADIENT);
  c.set_strength_mode(GrainsConfig::STRENGTH_MODE_RELATIVE);
  c.set_apply_to(v1::APPLY_TO_FROM_LAST_PROMPT);
  return c;
}

// What both presets share.
void SetCommon(GrainsConfig& c) {
  c.set_baseline(GrainsConfig::BASELINE_MASK_TOKEN);
  c.set_steps(20);
  c.set_max_points(127);
  c.set_completeness_tolerance(0.05f);
  c.set_k(10);
  c.set_rho(0.3f);
  c.set_mask(GrainsConfig::MASK_TOKEN);
  c.set_delta_position(GrainsConfig::DELTA_POSITION_LAST_PROMPT);
  c.set_norm(GrainsConfig::NORM_PRESERVE);
  c.set_validation_fraction(0.2f);
  c.set_max_kl(0.2f);
  c.set_seed(0);
  c.set_max_pair_tokens(1024);
  c.set_random_directions(20);
  c.set_rank(32);
}

}  // namespace

absl::StatusOr<GrainsConfig> ResolveGrainsConfig(const GrainsConfig& config) {
  GrainsConfig resolved = config.preset() == GrainsConfig::PRESET_PAPER_FAITHFUL ? PaperFaithful() : Product();
  SetCommon(resolved);
  // Merging appends to repeated fields: the caller's replace the preset's.
  if (config.candidate_strengths_size() > 0) resolved.clear_candidate_strengths();
  resolved.MergeFrom(config);
  std::vector<FieldViolation> violations = Violations(resolved);
  if (!violations.empty()) return FieldError(std::move(violations));
  return resolved;
}

IntegratedGradientsOptions PathOptions(const GrainsConfig& c) {
  return {.quadrature = c.quadrature() == GrainsConfig::QUADRATURE_GAUSS_LEGENDRE ? QuadratureKind::kGaussLegendre
                        : c.quadrature() == GrainsConfig::QUADRATURE_MIDPOINT     ? QuadratureKind::kMidpoint
                                                                                  : QuadratureKind::kFejer2Adaptive,
          .steps = c.steps(),
          .max_points = c.max_points(),
          .tolerance = c.completeness_tolerance(),
          .k = c.k(),
          .rho = c.rho()};
}

ApplyTo ApplyToOf(const GrainsConfig& c) { return static_cast<ApplyTo>(c.apply_to()); }

StrengthMode StrengthModeOf(const GrainsConfig& c) {
  return c.strength_mode() == GrainsConfig::STRENGTH_MODE_ABSOLUTE ? StrengthMode::kAbsolute : StrengthMode::kRelative;
}

Operation OperationOf(const GrainsConfig& c) {
  return c.norm() == GrainsConfig::NORM_NONE ? Operation::kAdd : Operation::kAddPreserveNorm;
}

}  // namespace trimtab
