#include "steering/methods/grains.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/status_macros.h"
#include "steering/methods/direction.h"
#include "steering/methods/fit_pairs.h"
#include "steering/methods/fit_warnings.h"
#include "steering/methods/grains_config.h"
#include "steering/methods/pair_attribution.h"
#include "steering/methods/training_states.h"
#include "steering/model_probe.h"

namespace trimtab {
namespace {

using methods::v1::GrainsConfig;

constexpr size_t kMinRows = 4;  // pairs with a delta that a decomposition needs
constexpr double kMinAgreement = 0.6;
constexpr double kLowConfidenceShare = 0.25;

PairAttribution AuditOf(const FitPair& pair, const PairScores& scores, bool used, const ModelProbe& probe) {
  PairAttribution audit{.pair_index = pair.index,
                        .attribution = scores.attribution,
                        .margin = static_cast<float>(scores.margin),
                        .margin_masked_positive = static_cast<float>(scores.margin_positive),
                        .margin_masked_negative = static_cast<float>(scores.margin_negative),
                        .completeness_error = static_cast<float>(scores.completeness_error),
                        .low_confidence = scores.low_confidence,
                        .used = used};
  for (size_t i = 0; i < pair.encoded.prompt.size(); ++i) {
    audit.tokens.push_back({.text = probe.TokenText(pair.encoded.prompt[i]),
                            .token_id = pair.encoded.prompt[i],
                            .position = static_cast<int32_t>(i)});
  }
  for (size_t c = 0; c < pair.encoded.candidates.size(); ++c) {
    TokenAttribution& token = audit.tokens[static_cast<size_t>(pair.encoded.candidates[c])];
    token.candidate = true;
    if (c < scores.scores.size()) token.score = static_cast<float>(scores.scores[c]);
  }
  for (int64_t position : scores.sides.positive) audit.tokens[static_cast<size_t>(position)].side = 1;
  for (int64_t position : scores.sides.negative) audit.tokens[static_cast<size_t>(position)].side = -1;
  return audit;
}

class GrainsSource final : public DirectionSource {
 public:
  explicit GrainsSource(GrainsConfig config) : config_(std::move(config)) {}

  double Cost(const FitContext& context) const override {
    double cost = 0;
    for (const FitPair& pair : context.pairs.training) {
      cost += AttributionCost(config_, pair.encoded) + EvidenceCost(config_, context, pair.encoded);
    }
    return cost;
  }

  absl::StatusOr<std::vector<DirectionSet>> Candidates(const FitContext& context) override {
    for (const FitPair& pair : context.pairs.training) {
      TRIMTAB_ASSIGN_OR_RETURN(scores_.emplace_back(), AttributePairOnce(config_, context.probe, pair.encoded,
                                                                         context.pairs.kind, context.job));
      context.progress.Add(AttributionCost(config_, pair.encoded), 1);
      TRIMTAB_RETURN_IF_ERROR(context.job.Checkpoint());
    }
    context.progress.Start(JobPhase::kMasking);
    TRIMTAB_ASSIGN_OR_RETURN(evidence_, CollectEvidence(config_, context, scores_));
    context.progress.Start(JobPhase::kDecomposing);
    const size_t rows = Rows();
    if (rows < kMinRows) {
      return PairsDegenerate(absl::StrCat("only ", rows, " pairs have tokens that speak for either answer, at least ",
                                          kMinRows, " are needed"),
                             static_cast<int64_t>(rows));
    }
    std::vector<LayerDirection> directions;
    for (const LayerEvidence& layer : evidence_) {
      directions.push_back(FitLayer(layer, config_));
      const std::vector<float>& direction = directions.back().direction;
      if (std::all_of(direction.begin(), direction.end(), [](float x) { return x == 0; })) {
        return PairsDegenerate("the pairs hold no signal: no direction separates the answers",
                               static_cast<int64_t>(rows));
      }
      TRIMTAB_RETURN_IF_ERROR(context.job.Checkpoint());
    }
    return CandidatesOf(context, std::move(directions));
  }

  float Stability(const FitContext&, const LayerDirection& direction) const override {
    return StabilityOf(EvidenceAt(direction.layer), direction, config_);
  }

  void Describe(const FitContext& context, const DirectionSet& chosen, FitReport& report) const override {
    const std::vector<FitPair>& pairs = context.pairs.training;
    report.pair_count = static_cast<int64_t>(Rows());
    std::vector<double> errors;
    for (size_t p = 0; p < pairs.size(); ++p) {
      if (scores_[p].low_confidence) ++report.low_confidence_pairs;
      errors.push_back(scores_[p].completeness_error);
      report.attributions.push_back(AuditOf(pairs[p], scores_[p], evidence_.front().has_row[p], context.probe));
    }
    std::nth_element(errors.begin(), errors.begin() + static_cast<ptrdiff_t>(errors.size() / 2), errors.end());
    report.median_completeness_error = static_cast<float>(errors[errors.size() / 2]);

    if (static_cast<double>(report.low_confidence_pairs) > kLowConfidenceShare * static_cast<double>(pairs.size())) {
      report.warnings.push_back(absl::StrCat("The attribution of ", report.low_confidence_pairs,
                                             " pairs misses the completeness tolerance."));
    }
    // A direction taken from the deltas alone rests on their agreement; the gradient's projection does not.
    if (config_.combine() != GrainsConfig::COMBINE_SUBSPACE_GRADIENT) {
      for (std::string& warning : DisagreementWarnings(chosen)) report.warnings.push_back(std::move(warning));
    }
    if (const double agreement = Agreement(EvidenceAt(chosen.front().layer)); agreement < kMinAgreement) {
      report.warnings.push_back(absl::StrFormat(
          "Masking moves only %.0f %% of the pairs the way of the preference's gradient: the prompts may not be what "
          "the preference hangs on.",
          100 * agreement));
    }
  }

 private:
  size_t Rows() const {
    const std::vector<bool>& has_row = evidence_.front().has_row;
    return static_cast<size_t>(std::count(has_row.begin(), has_row.end(), true));
  }
  const LayerEvidence& EvidenceAt(int64_t layer) const {
    return *std::find_if(evidence_.begin(), evidence_.end(), [&](const LayerEvidence& e) { return e.layer == layer; });
  }

  const GrainsConfig config_;
  std::vector<PairScores> scores_;  // of the training pairs
  std::vector<LayerEvidence> evidence_;
};

}  // namespace

absl::StatusOr<FitRecipe> GrainsRecipe(const GrainsConfig& config) {
  TRIMTAB_ASSIGN_OR_RETURN(const GrainsConfig resolved, ResolveGrainsConfig(config));
  return FitRecipe{.method = "grains",
                   .all_layers = resolved.preset() == GrainsConfig::PRESET_PAPER_FAITHFUL,
                   .options = resolved.fit(),
                   .resolved_config = resolved.SerializeAsString(),
                   .source = [resolved] { return std::make_unique<GrainsSource>(resolved); }};
}

}  // namespace trimtab
