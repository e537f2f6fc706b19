#include "steering/methods/pair_attribution.h"

#include <ATen/ops/zeros_like.h>

#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"
#include "steering/attribution/integrated_gradients.h"
#include "steering/attribution/occlusion.h"
#include "steering/attribution/smoothgrad.h"
#include "steering/byte_io.h"
#include "steering/methods/grains_config.h"
#include "steering/methods/measurements.h"

namespace trimtab {
namespace {

using methods::v1::GrainsConfig;

constexpr double kGradientCost = 4;  // of a row with gradients, in rows without
constexpr int kFirstAdaptivePoints = 15;

// The prompt with its candidates at the path's start: [L, hidden].
at::Tensor PathBaseline(const GrainsConfig& config, const ModelProbe& probe, const EncodedPair& pair,
                        const at::Tensor& prompt) {
  at::Tensor start =
      config.baseline() == GrainsConfig::BASELINE_VOCAB_MEAN ? probe.VocabMeanEmbedding() : probe.MaskEmbedding();
  if (config.baseline() == GrainsConfig::BASELINE_ZERO) start = at::zeros_like(start);
  at::Tensor baseline = prompt.clone();
  for (int64_t position : pair.candidates) baseline[position].copy_(start);
  return baseline;
}

absl::Status ScoreByPath(const GrainsConfig& config, const ModelProbe& probe, const EncodedPair& pair, MarginKind kind,
                         JobContext& job, PairScores& result) {
  const at::Tensor prompt = probe.Embed(pair.prompt);
  const at::Tensor baseline = PathBaseline(config, probe, pair, prompt);
  const auto gradients = [&](const at::Tensor& embeddings) {
    return probe.PromptGradients(pair, kind, embeddings, job);
  };
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<double> start, probe.Margins(pair, kind, baseline.unsqueeze(0), job));
  TRIMTAB_ASSIGN_OR_RETURN(
      const IntegratedGradientsResult path,
      IntegratedGradients(prompt, baseline, pair.candidates, result.margin, start[0], PathOptions(config), gradients));
  result.scores = path.scores;
  result.completeness_error = path.completeness_error;
  result.low_confidence = !path.converged;
  return absl::OkStatus();
}

absl::Status ScoreByOcclusion(const GrainsConfig& config, const ModelProbe& probe, const EncodedPair& pair,
                              MarginKind kind, JobContext& job, PairScores& result) {
  const at::Tensor mask = MaskOf(config, probe);
  TRIMTAB_ASSIGN_OR_RETURN(OcclusionResult occlusion,
                           Occlusion(pair.candidates, [&](const std::vector<std::vector<int64_t>>& sets) {
                             return probe.MaskedMargins(pair, kind, sets, mask, job);
                           }));
  result.attribution = "occlusion";
  result.scores = std::move(occlusion.scores);
  result.margin = occlusion.value;
  return absl::OkStatus();
}

absl::Status Score(const GrainsConfig& config, const ModelProbe& probe, const EncodedPair& pair, MarginKind kind,
                   uint64_t stream, JobContext& job, PairScores& result) {
  switch (ChooseAttribution(config, pair.candidates.size())) {
    case GrainsConfig::ATTRIBUTION_KIND_INTEGRATED_GRADIENTS:
      result.attribution = "integrated_gradients";
      TRIMTAB_RETURN_IF_ERROR(ScoreByPath(config, probe, pair, kind, job, result));
      if (result.low_confidence && config.quadrature() == GrainsConfig::QUADRATURE_FEJER2_ADAPTIVE) {
        return ScoreByOcclusion(config, probe, pair, kind, job, result);
      }
      return absl::OkStatus();
    case GrainsConfig::ATTRIBUTION_KIND_GRADIENT: {
      result.attribution = "gradient";
      const at::Tensor prompt = probe.Embed(pair.prompt);
      TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor gradient, probe.PromptGradients(pair, kind, prompt.unsqueeze(0), job));
      result.scores =
          GradientTimesDifference(gradient[0], prompt, PathBaseline(config, probe, pair, prompt), pair.candidates);
      return absl::OkStatus();
    }
    case GrainsConfig::ATTRIBUTION_KIND_SMOOTHGRAD: {
      result.attribution = "smoothgrad";
      const at::Tensor prompt = probe.Embed(pair.prompt);
      const auto gradients = [&](const at::Tensor& embeddings) {
        return probe.PromptGradients(pair, kind, embeddings, job);
      };
      TRIMTAB_ASSIGN_OR_RETURN(
          result.scores,
          SmoothGrad(
              prompt, PathBaseline(config, probe, pair, prompt), pair.candidates,
              {.samples = config.samples(), .noise = config.noise(), .seed = config.fit().seed(), .stream = stream},
              gradients));
      return absl::OkStatus();
    }
    case GrainsConfig::ATTRIBUTION_KIND_RANDOM:
      result.attribution = "random";
      result.scores = RandomScores(pair.candidates.size(), config.fit().seed(), stream);
      return absl::OkStatus();
    default:
      return ScoreByOcclusion(config, probe, pair, kind, job, result);
  }
}

}  // namespace

std::string PairScores::Serialize() const {
  ByteWriter writer;
  writer.String(attribution);
  writer.Numbers(scores);
  writer.Numbers(sides.positive);
  writer.Numbers(sides.negative);
  for (double value : {margin, margin_positive, margin_negative, completeness_error}) writer.Number(value);
  writer.Number(static_cast<uint8_t>(low_confidence));
  return writer.Take();
}

bool PairScores::Parse(std::string_view bytes) {
  ByteReader reader(bytes);
  uint8_t low = 0;
  reader.String(attribution);
  reader.Numbers(scores);
  reader.Numbers(sides.positive);
  reader.Numbers(sides.negative);
  for (double* value : {&margin, &margin_positive, &margin_negative, &completeness_error}) reader.Number(*value);
  reader.Number(low);
  low_confidence = low != 0;
  return reader.ok() && reader.remaining() == 0;
}

GrainsConfig::AttributionKind ChooseAttribution(const GrainsConfig& config, size_t candidates) {
  if (config.attribution() != GrainsConfig::ATTRIBUTION_KIND_UNSPECIFIED) return config.attribution();
  return candidates < 2 * static_cast<size_t>(config.steps()) ? GrainsConfig::ATTRIBUTION_KIND_OCCLUSION
                                                              : GrainsConfig::ATTRIBUTION_KIND_INTEGRATED_GRADIENTS;
}

at::Tensor MaskOf(const GrainsConfig& config, const ModelProbe& probe) {
  return config.mask() == GrainsConfig::MASK_VOCAB_MEAN ? probe.VocabMeanEmbedding() : probe.MaskEmbedding();
}

absl::StatusOr<PairScores> AttributePair(const GrainsConfig& config, const ModelProbe& probe, const EncodedPair& pair,
                                         MarginKind kind, uint64_t stream, JobContext& job) {
  PairScores result;
  const at::Tensor mask = MaskOf(config, probe);
  if (ChooseAttribution(config, pair.candidates.size()) != GrainsConfig::ATTRIBUTION_KIND_OCCLUSION) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::vector<double> whole, probe.MaskedMargins(pair, kind, {{}}, mask, job));
    result.margin = whole[0];
  }
  TRIMTAB_RETURN_IF_ERROR(Score(config, probe, pair, kind, stream, job, result));
  result.margin_positive = result.margin_negative = result.margin;
  result.sides = SelectSides(result.scores, pair.candidates, config.k(), config.rho());
  std::vector<std::vector<int64_t>> sets;
  if (!result.sides.positive.empty()) sets.push_back(result.sides.positive);
  if (!result.sides.negative.empty()) sets.push_back(result.sides.negative);
  if (sets.empty()) return result;
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<double> masked, probe.MaskedMargins(pair, kind, sets, mask, job));
  if (!result.sides.positive.empty()) result.margin_positive = masked.front();
  if (!result.sides.negative.empty()) result.margin_negative = masked.back();
  return result;
}

absl::StatusOr<PairScores> AttributePairOnce(const GrainsConfig& config, const ModelProbe& probe,
                                             const EncodedPair& pair, MarginKind kind, JobContext& job) {
  // Only what scores and sides depend on: fits that differ in other things share the result.
  GrainsConfig own;
  own.set_attribution(ChooseAttribution(config, pair.candidates.size()));
  own.set_baseline(config.baseline());
  own.set_quadrature(config.quadrature());
  own.set_steps(config.steps());
  own.set_max_points(config.max_points());
  own.set_completeness_tolerance(config.completeness_tolerance());
  own.set_k(config.k());
  own.set_rho(config.rho());
  own.set_mask(config.mask());
  own.set_samples(config.samples());
  own.set_noise(config.noise());
  if (own.attribution() == GrainsConfig::ATTRIBUTION_KIND_RANDOM ||
      own.attribution() == GrainsConfig::ATTRIBUTION_KIND_SMOOTHGRAD) {
    own.mutable_fit()->set_seed(config.fit().seed());
  }
  Sha256 hash;
  UpdateWithProbe(probe, hash);
  hash.UpdateField(own.SerializeAsString());
  hash.UpdateField(MarginKindName(kind));
  UpdateWithPair(pair, hash);
  const std::array<uint8_t, 32> digest = hash.Finish();
  uint64_t stream = 0;
  std::memcpy(&stream, digest.data(), sizeof(stream));
  const std::string key = absl::StrCat("attribution/", ToHex(digest.data(), digest.size()));
  TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::string> saved, job.LoadPartial(key));
  PairScores scores;
  if (saved.has_value() && scores.Parse(*saved)) return scores;
  TRIMTAB_ASSIGN_OR_RETURN(scores, AttributePair(config, probe, pair, kind, stream, job));
  TRIMTAB_RETURN_IF_ERROR(job.SavePartial(key, scores.Serialize()));
  return scores;
}

double AttributionCost(const GrainsConfig& config, const EncodedPair& pair) {
  const auto tokens = static_cast<double>(pair.tokens());
  const auto candidates = static_cast<double>(pair.candidates.size());
  const double masked = tokens + 2 * (tokens - static_cast<double>(pair.prompt.size()) / 2);
  switch (ChooseAttribution(config, pair.candidates.size())) {
    case GrainsConfig::ATTRIBUTION_KIND_INTEGRATED_GRADIENTS: {
      const int points =
          config.quadrature() == GrainsConfig::QUADRATURE_FEJER2_ADAPTIVE ? kFirstAdaptivePoints * 2 : config.steps();
      return masked + tokens + kGradientCost * points * tokens;
    }
    case GrainsConfig::ATTRIBUTION_KIND_GRADIENT:
      return masked + kGradientCost * tokens;
    case GrainsConfig::ATTRIBUTION_KIND_SMOOTHGRAD:
      return masked + kGradientCost * config.samples() * tokens;
    case GrainsConfig::ATTRIBUTION_KIND_RANDOM:
      return masked;
    default:
      // Each variant repeats the prompt from its masked token on: half of the candidates on average.
      return masked + candidates * (tokens - static_cast<double>(pair.prompt.size()) + candidates / 2);
  }
}

}  // namespace trimtab
