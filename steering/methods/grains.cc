#include "steering/methods/grains.h"

#include <google/protobuf/any.pb.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"
#include "steering/methods/direction.h"
#include "steering/methods/direction_search.h"
#include "steering/methods/effect.h"
#include "steering/methods/fit_pairs.h"
#include "steering/methods/fit_warnings.h"
#include "steering/methods/grains_config.h"
#include "steering/methods/pair_attribution.h"
#include "steering/methods/progress.h"
#include "steering/methods/training_states.h"
#include "steering/model_probe.h"

namespace trimtab {
namespace {

using methods::v1::GrainsConfig;

constexpr size_t kMinRows = 4;           // pairs with a delta that a decomposition needs
constexpr size_t kMaxControlPairs = 12;  // the random control runs on no more
constexpr double kCandidateDepths[] = {0.5, 0.6, 0.7};

// Layers to measure at, ascending.
absl::StatusOr<std::vector<int64_t>> ChooseLayers(const GrainsConfig& config, int64_t num_layers) {
  std::vector<int64_t> layers(config.layers().begin(), config.layers().end());
  const char* field = "method_config.layers";
  if (layers.empty() && config.candidate_layers_size() > 0) {
    layers.assign(config.candidate_layers().begin(), config.candidate_layers().end());
    field = "method_config.candidate_layers";
  }
  if (layers.empty() && config.preset() == GrainsConfig::PRESET_PAPER_FAITHFUL) {
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

// True when the layers are steered together and not chosen from.
bool SteersTogether(const GrainsConfig& config) {
  return config.layers_size() > 0 ||
         (config.preset() == GrainsConfig::PRESET_PAPER_FAITHFUL && config.candidate_layers_size() == 0);
}

std::vector<const EncodedPair*> Pointers(const std::vector<EncodedPair>& pairs) {
  std::vector<const EncodedPair*> pointers;
  for (const EncodedPair& pair : pairs) pointers.push_back(&pair);
  return pointers;
}

// Names this fit's partial results: those of another configuration or other pairs are not taken up.
std::string KeyPrefix(const GrainsConfig& config, const FitInput& input, const ModelProbe& probe) {
  Sha256 hash;
  hash.UpdateField(probe.fingerprint()).UpdateField(config.SerializeAsString()).UpdateField(PairsHash(input.pairs));
  const int64_t rows = probe.gradient_tokens();
  hash.Update(&rows, sizeof(rows));
  return absl::StrCat("grains/", hash.FinishHex().substr(0, 16), "/");
}

PairAttribution AuditOf(const FitPair& pair, bool used, const ModelProbe& probe) {
  PairAttribution audit{.pair_index = pair.index,
                        .attribution = pair.scores.attribution,
                        .margin = static_cast<float>(pair.scores.margin),
                        .margin_masked_positive = static_cast<float>(pair.scores.margin_positive),
                        .margin_masked_negative = static_cast<float>(pair.scores.margin_negative),
                        .completeness_error = static_cast<float>(pair.scores.completeness_error),
                        .low_confidence = pair.scores.low_confidence,
                        .used = used};
  for (size_t i = 0; i < pair.encoded.prompt.size(); ++i) {
    audit.tokens.push_back({.text = probe.TokenText(pair.encoded.prompt[i]),
                            .token_id = pair.encoded.prompt[i],
                            .position = static_cast<int32_t>(i)});
  }
  for (size_t c = 0; c < pair.encoded.candidates.size(); ++c) {
    TokenAttribution& token = audit.tokens[static_cast<size_t>(pair.encoded.candidates[c])];
    token.candidate = true;
    if (c < pair.scores.scores.size()) token.score = static_cast<float>(pair.scores.scores[c]);
  }
  for (int64_t position : pair.scores.sides.positive) audit.tokens[static_cast<size_t>(position)].side = 1;
  for (int64_t position : pair.scores.sides.negative) audit.tokens[static_cast<size_t>(position)].side = -1;
  return audit;
}

// One fit, step by step.
class Fitter {
 public:
  Fitter(const GrainsConfig& config, const FitInput& input, ModelProbe& probe, JobContext& job)
      : config_(config),
        input_(input),
        probe_(probe),
        job_(job),
        progress_(job, static_cast<int64_t>(input.pairs.size())),
        prefix_(KeyPrefix(config, input, probe)) {}

  absl::StatusOr<FitResult> Run() {
    progress_.Start(JobPhase::kAttributing);
    TRIMTAB_ASSIGN_OR_RETURN(layers_, ChooseLayers(config_, probe_.num_layers()));
    TRIMTAB_ASSIGN_OR_RETURN(pairs_, PreparePairs(config_, input_, probe_, progress_, job_));
    progress_.set_total_cost(TotalCost());
    progress_.Add(0, pairs_.left_out + static_cast<int64_t>(pairs_.validation.size()));
    if (NeedsAttribution()) TRIMTAB_RETURN_IF_ERROR(Attribute());
    progress_.Start(JobPhase::kMasking);
    TRIMTAB_ASSIGN_OR_RETURN(
        evidence_, CollectEvidence(config_, probe_, pairs_.training, pairs_.kind, layers_, prefix_, progress_, job_));
    progress_.Start(JobPhase::kDecomposing);
    TRIMTAB_RETURN_IF_ERROR(Decompose());
    progress_.Start(JobPhase::kValidating);
    TRIMTAB_RETURN_IF_ERROR(Validate());
    return Finish();
  }

 private:
  bool NeedsAttribution() const { return config_.combine() != GrainsConfig::COMBINE_MARGIN_GRADIENT; }

  std::vector<const EncodedPair*> ValidationPairs() const {
    if (!pairs_.validation.empty()) return Pointers(pairs_.validation);
    std::vector<const EncodedPair*> training;
    for (const FitPair& pair : pairs_.training) training.push_back(&pair.encoded);
    return training;
  }

  std::vector<const EncodedPair*> ControlPairs() const {
    std::vector<const EncodedPair*> control = pairs_.held_out.empty() ? ValidationPairs() : Pointers(pairs_.held_out);
    if (control.size() > kMaxControlPairs) control.resize(kMaxControlPairs);
    return control;
  }

  const LayerEvidence& EvidenceAt(int64_t layer) const {
    return *std::find_if(evidence_.begin(), evidence_.end(), [&](const LayerEvidence& e) { return e.layer == layer; });
  }

  double TotalCost() const {
    const double depth = static_cast<double>(layers_.back() + 1) / static_cast<double>(probe_.num_layers());
    double cost = 0;
    for (const FitPair& pair : pairs_.training) {
      if (NeedsAttribution()) cost += AttributionCost(config_, pair.encoded);
      cost += EvidenceCost(config_, pair.encoded, depth);
    }
    cost += SearchCost(config_, probe_, SteersTogether(config_) ? 1 : layers_.size(), ValidationPairs());
    cost += SteeredCost(config_, Pointers(pairs_.held_out), 2);
    return cost + SteeredCost(config_, ControlPairs(), static_cast<size_t>(config_.random_directions()) + 1);
  }

  absl::Status Attribute() {
    for (FitPair& pair : pairs_.training) {
      const std::string key = absl::StrCat(prefix_, "pair/", pair.index);
      TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::string> saved, job_.LoadPartial(key));
      if (!saved.has_value() || !pair.scores.Parse(*saved)) {
        TRIMTAB_ASSIGN_OR_RETURN(pair.scores, AttributePair(config_, probe_, pair.encoded, pairs_.kind,
                                                            static_cast<uint64_t>(pair.index), job_));
        TRIMTAB_RETURN_IF_ERROR(job_.SavePartial(key, pair.scores.Serialize()));
      }
      progress_.Add(AttributionCost(config_, pair.encoded), 1);
      TRIMTAB_RETURN_IF_ERROR(job_.Checkpoint());
    }
    return absl::OkStatus();
  }

  absl::Status Decompose() {
    const std::vector<bool>& has_row = evidence_.front().has_row;
    rows_ = static_cast<size_t>(std::count(has_row.begin(), has_row.end(), true));
    if (NeedsAttribution() && rows_ < kMinRows) {
      return PairsDegenerate(absl::StrCat("only ", rows_, " pairs have tokens that speak for either answer, at least ",
                                          kMinRows, " are needed"),
                             static_cast<int64_t>(rows_));
    }
    std::vector<LayerDirection> directions;
    for (const LayerEvidence& layer : evidence_) {
      LayerDirection direction = FitLayer(layer, config_);
      if (SteersTogether(config_) && StrengthModeOf(config_) == StrengthMode::kRelative) {
        direction.weight = 1.0f / static_cast<float>(layers_.size());
      }
      if (std::all_of(direction.direction.begin(), direction.direction.end(), [](float x) { return x == 0; })) {
        return PairsDegenerate("the pairs hold no signal: no direction separates the answers",
                               static_cast<int64_t>(rows_));
      }
      directions.push_back(std::move(direction));
      TRIMTAB_RETURN_IF_ERROR(job_.Checkpoint());
    }
    if (SteersTogether(config_)) {
      candidates_.push_back(std::move(directions));
    } else {
      for (LayerDirection& direction : directions) candidates_.push_back({std::move(direction)});
    }
    return absl::OkStatus();
  }

  absl::Status Validate() {
    TRIMTAB_ASSIGN_OR_RETURN(search_, SearchDirections(config_, probe_, candidates_, ValidationPairs(),
                                                       pairs_.report_kind, progress_, job_));
    for (size_t i = 0; i < search_.directions.size(); ++i) {
      LayerDirection& direction = search_.directions[i];
      const auto evidence = std::find_if(evidence_.begin(), evidence_.end(),
                                         [&](const LayerEvidence& layer) { return layer.layer == direction.layer; });
      direction.bootstrap_stability = StabilityOf(*evidence, direction, config_);
      TRIMTAB_RETURN_IF_ERROR(job_.Checkpoint());
    }
    return absl::OkStatus();
  }

  absl::StatusOr<FitResult> Finish() {
    FitResult result;
    FitReport& report = result.report;
    TRIMTAB_ASSIGN_OR_RETURN(result.vector, MakeVector(config_, probe_, search_.directions, search_.strength));
    if (!pairs_.held_out.empty()) {
      const std::vector<const EncodedPair*> held_out = Pointers(pairs_.held_out);
      const ApplyTo apply_to = ApplyToOf(config_);
      const std::vector<SteeringSetting> settings = {
          {.apply_to = apply_to}, {.vector = result.vector, .strength = search_.strength, .apply_to = apply_to}};
      TRIMTAB_ASSIGN_OR_RETURN(const auto margins, probe_.SteeredMargins(held_out, pairs_.report_kind, settings, job_));
      std::vector<double> before, after;
      for (const std::vector<double>& pair : margins) {
        before.push_back(pair[0]);
        after.push_back(pair[1]);
      }
      report.held_out = SummarizeEffect(before, after);
      progress_.Add(SteeredCost(config_, held_out, settings.size()));
    }
    if (config_.random_directions() > 0) {
      TRIMTAB_ASSIGN_OR_RETURN(const std::vector<double> gains,
                               RandomControl(config_, probe_, search_.directions, search_.strength, ControlPairs(),
                                             pairs_.report_kind, job_));
      report.random_directions = static_cast<int64_t>(gains.size());
      report.random_gain_max = static_cast<float>(*std::max_element(gains.begin(), gains.end()));
      report.random_gain_mean = static_cast<float>(MeanWithInterval(gains).mean);
    }
    report.objective = std::string(MarginKindName(pairs_.kind));
    report.pair_count = static_cast<int64_t>(NeedsAttribution() ? rows_ : pairs_.training.size());
    std::vector<double> errors;
    for (size_t p = 0; p < pairs_.training.size() && NeedsAttribution(); ++p) {
      const PairScores& scores = pairs_.training[p].scores;
      if (scores.low_confidence) ++report.low_confidence_pairs;
      errors.push_back(scores.completeness_error);
      report.attributions.push_back(AuditOf(pairs_.training[p], evidence_.front().has_row[p], probe_));
    }
    if (!errors.empty()) {
      std::nth_element(errors.begin(), errors.begin() + static_cast<ptrdiff_t>(errors.size() / 2), errors.end());
      report.median_completeness_error = static_cast<float>(errors[errors.size() / 2]);
    }
    report.search = search_.points;
    report.validation = search_.validation;
    report.kl_at_default = static_cast<float>(search_.kl);
    GrainsConfig used = config_;
    used.set_batch_tokens(static_cast<int32_t>(probe_.batch_tokens()));
    report.resolved_config = used.SerializeAsString();
    report.warnings = FitWarnings({.config = config_,
                                   .report = report,
                                   .directions = search_.directions,
                                   .left_out = pairs_.left_out,
                                   .agreement = Agreement(EvidenceAt(search_.directions.front().layer)),
                                   .training = static_cast<int64_t>(pairs_.training.size()),
                                   .reversed = search_.reversed,
                                   .over_budget = search_.over_budget,
                                   .validated_on_training = pairs_.validation.empty(),
                                   .has_neutral_text = probe_.has_neutral_text()});
    progress_.Add(SteeredCost(config_, ControlPairs(), static_cast<size_t>(config_.random_directions()) + 1));
    return result;
  }

  const GrainsConfig& config_;
  const FitInput& input_;
  ModelProbe& probe_;
  JobContext& job_;
  ProgressMeter progress_;
  const std::string prefix_;
  std::vector<int64_t> layers_;
  FitPairs pairs_;
  std::vector<LayerEvidence> evidence_;
  size_t rows_ = 0;
  std::vector<DirectionSet> candidates_;
  SearchResult search_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SteeringMethod>> GrainsMethod::Create(const google::protobuf::Any* config) {
  GrainsConfig given;
  if (config != nullptr && !config->UnpackTo(&given)) {
    return ReasonError(absl::StatusCode::kInvalidArgument, kMethodConfigMismatch,
                       absl::StrCat("method_config of \"grains\" must be a ", given.GetTypeName()),
                       {{"expected", given.GetTypeName()}, {"type_url", config->type_url()}});
  }
  TRIMTAB_ASSIGN_OR_RETURN(GrainsConfig resolved, ResolveGrainsConfig(given));
  return std::make_unique<GrainsMethod>(std::move(resolved));
}

MethodInfo GrainsMethod::Info() {
  return {.id = "grains",
          .display_name = "GrAInS",
          .description =
              "Attributes the preference to prompt tokens, masks those that speak for either answer and steers along "
              "the principal directions of what masking changes, oriented by the preference's own gradient.",
          .config_type = GrainsConfig::descriptor()->full_name(),
          .default_config = ResolveGrainsConfig({})->SerializeAsString(),
          .sites = {"block_output"}};
}

absl::StatusOr<FitResult> GrainsMethod::Fit(const FitInput& input, ModelProbe& probe, JobContext& job) const {
  if (config_.has_batch_tokens()) probe.set_batch_tokens(config_.batch_tokens());
  return Fitter(config_, input, probe, job).Run();
}

}  // namespace trimtab
