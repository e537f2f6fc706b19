#include "steering/methods/grains_config.h"

#include "server/base/status_macros.h"
#include "steering/methods/fit_options.h"
#include "trimtab/v1/common.pb.h"

namespace trimtab {
namespace {

using methods::v1::FitOptions;
using methods::v1::GrainsConfig;

void Check(const GrainsConfig& c, ConfigChecker& check) {
  check.Require(GrainsConfig::Preset_IsValid(c.preset()), "preset", "is unknown");
  check.Require(GrainsConfig::AttributionKind_IsValid(c.attribution()), "attribution", "is unknown");
  check.Require(GrainsConfig::Baseline_IsValid(c.baseline()), "baseline", "is unknown");
  check.Require(GrainsConfig::Quadrature_IsValid(c.quadrature()), "quadrature", "is unknown");
  check.Require(GrainsConfig::Mask_IsValid(c.mask()), "mask", "is unknown");
  check.Require(GrainsConfig::DeltaPosition_IsValid(c.delta_position()), "delta_position", "is unknown");
  check.Require(GrainsConfig::Combine_IsValid(c.combine()), "combine", "is unknown");
  check.Require(GrainsConfig::Orientation_IsValid(c.orientation()), "orientation", "is unknown");
  check.Range("steps", c.steps(), 1, 512);
  check.Require(c.max_points() == 15 || c.max_points() == 31 || c.max_points() == 63 || c.max_points() == 127,
                "max_points", "must be 15, 31, 63 or 127");
  check.AboveZero("completeness_tolerance", c.completeness_tolerance(), 1);
  check.Range("k", c.k(), 1, 1024);
  check.AboveZero("rho", c.rho(), 1);
  check.Range("rank", c.rank(), 1, 1024);
  check.Range("samples", c.samples(), 1, 512);
  check.AboveZero("noise", c.noise(), 10);
  check.Range("gradient_share", c.gradient_share(), 0.0f, 1.0f);
}

// As close to the paper as can be told (steering.md A10).
GrainsConfig PaperFaithful() {
  GrainsConfig c;
  c.set_preset(GrainsConfig::PRESET_PAPER_FAITHFUL);
  c.set_attribution(GrainsConfig::ATTRIBUTION_KIND_INTEGRATED_GRADIENTS);
  c.set_quadrature(GrainsConfig::QUADRATURE_GAUSS_LEGENDRE);
  c.set_combine(GrainsConfig::COMBINE_PAPER);
  c.set_orientation(GrainsConfig::ORIENTATION_MEAN_DELTA);
  FitOptions& fit = *c.mutable_fit();
  fit.set_objective(methods::v1::OBJECTIVE_KIND_PREF_SUM);
  fit.set_strength_mode(methods::v1::STRENGTH_MODE_ABSOLUTE);
  fit.set_apply_to(v1::APPLY_TO_ALL);
  for (float strength : {5.0f, 10.0f, 20.0f, 40.0f, 80.0f, 100.0f}) fit.add_candidate_strengths(strength);
  return c;
}

GrainsConfig Product() {
  GrainsConfig c;
  c.set_preset(GrainsConfig::PRESET_PRODUCT);
  c.set_quadrature(GrainsConfig::QUADRATURE_FEJER2_ADAPTIVE);
  c.set_combine(GrainsConfig::COMBINE_SUBSPACE_GRADIENT);
  c.set_orientation(GrainsConfig::ORIENTATION_MARGIN_GRADIENT);
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
  c.set_rank(32);
  c.set_samples(20);
  c.set_noise(0.1f);
  c.set_gradient_share(0);
  c.set_drop_low_confidence(false);
}

}  // namespace

absl::StatusOr<GrainsConfig> ResolveGrainsConfig(const GrainsConfig& config) {
  GrainsConfig resolved = config.preset() == GrainsConfig::PRESET_PAPER_FAITHFUL ? PaperFaithful() : Product();
  SetCommon(resolved);
  const FitOptions defaults = resolved.fit();
  resolved.MergeFrom(config);
  ConfigChecker checker;
  Check(resolved, checker);
  *resolved.mutable_fit() = ResolveFitOptions(config.fit(), defaults, checker);
  TRIMTAB_RETURN_IF_ERROR(checker.status());
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

}  // namespace trimtab
