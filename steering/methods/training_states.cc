#include "steering/methods/training_states.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "steering/methods/grains_config.h"

namespace trimtab {
namespace {

using methods::v1::GrainsConfig;

constexpr double kGradientCost = 4;

// Parts of a pair's evidence, in this order on the second axis of a group's tensor.
enum Part { kGradient = 0, kPaired = 1, kPositive = 2, kNegative = 3 };

int64_t NumParts(const GrainsConfig& config) { return config.combine() == GrainsConfig::COMBINE_PAPER ? 4 : 2; }

bool NeedsDeltas(const GrainsConfig& config) { return config.combine() != GrainsConfig::COMBINE_MARGIN_GRADIENT; }

bool HasRow(const GrainsConfig& config, const FitPair& pair) {
  return NeedsDeltas(config) && !pair.scores.sides.positive.empty() && !pair.scores.sides.negative.empty();
}

DeltaPosition PositionOf(const GrainsConfig& config) {
  switch (config.delta_position()) {
    case GrainsConfig::DELTA_POSITION_LAST_RESPONSE:
      return DeltaPosition::kLastResponse;
    case GrainsConfig::DELTA_POSITION_MEAN_RESPONSE:
      return DeltaPosition::kMeanResponse;
    default:
      return DeltaPosition::kLastPrompt;
  }
}

// Evidence of one group: float32 [pairs, parts, layers, hidden].
at::Tensor Measure(const GrainsConfig& config, const ModelProbe& probe, const FitPair* pairs, size_t count,
                   MarginKind kind, const std::vector<int64_t>& layers) {
  const auto num_layers = static_cast<int64_t>(layers.size());
  at::Tensor evidence = at::zeros({static_cast<int64_t>(count), NumParts(config), num_layers, probe.hidden_size()});
  std::vector<const EncodedPair*> encoded;
  for (size_t i = 0; i < count; ++i) encoded.push_back(&pairs[i].encoded);
  evidence.select(1, kGradient).copy_(probe.SteeringGradients(encoded, kind, layers, ApplyToOf(config)));

  const at::Tensor mask = MaskOf(config, probe);
  const bool with_plain = config.combine() == GrainsConfig::COMBINE_PAPER;
  std::vector<at::Tensor> prompts;  // per pair with a row: without S-, without S+, and whole when sides are needed
  std::vector<std::vector<TokenId>> responses;
  std::vector<int64_t> owners;
  for (size_t i = 0; i < count; ++i) {
    if (!HasRow(config, pairs[i])) continue;
    owners.push_back(static_cast<int64_t>(i));
    const at::Tensor prompt = probe.Embed(pairs[i].encoded.prompt);
    for (const std::vector<int64_t>* side : {&pairs[i].scores.sides.negative, &pairs[i].scores.sides.positive}) {
      at::Tensor masked = prompt.clone();
      for (int64_t position : *side) masked[position].copy_(mask);
      prompts.push_back(masked);
    }
    if (with_plain) prompts.push_back(prompt);
    responses.insert(responses.end(), with_plain ? 3 : 2, pairs[i].encoded.preferred);
  }
  if (prompts.empty()) return evidence;
  const at::Tensor states = probe.CaptureStates(prompts, responses, PositionOf(config), layers);
  const int64_t stride = with_plain ? 3 : 2;
  for (size_t i = 0; i < owners.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i) * stride;
    evidence[owners[i]][kPaired].copy_(states[row] - states[row + 1]);
    if (!with_plain) continue;
    evidence[owners[i]][kPositive].copy_(states[row + 2] - states[row + 1]);
    evidence[owners[i]][kNegative].copy_(states[row + 2] - states[row]);
  }
  return evidence;
}

absl::StatusOr<at::Tensor> LoadOrMeasure(const GrainsConfig& config, const ModelProbe& probe, const FitPair* pairs,
                                         size_t count, MarginKind kind, const std::vector<int64_t>& layers,
                                         const std::string& key, JobContext& job) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::string> saved, job.LoadPartial(key));
  const std::vector<int64_t> shape = {static_cast<int64_t>(count), NumParts(config),
                                      static_cast<int64_t>(layers.size()), probe.hidden_size()};
  const size_t bytes = static_cast<size_t>(shape[0] * shape[1] * shape[2] * shape[3]) * sizeof(float);
  if (saved.has_value() && saved->size() == bytes) {
    at::Tensor evidence = at::empty(shape, at::kFloat);
    std::memcpy(evidence.data_ptr<float>(), saved->data(), bytes);
    return evidence;
  }
  at::Tensor evidence = Measure(config, probe, pairs, count, kind, layers).contiguous();
  TRIMTAB_RETURN_IF_ERROR(
      job.SavePartial(key, std::string_view(reinterpret_cast<const char*>(evidence.data_ptr<float>()), bytes)));
  return evidence;
}

}  // namespace

absl::StatusOr<std::vector<LayerEvidence>> CollectEvidence(const GrainsConfig& config, const ModelProbe& probe,
                                                           const std::vector<FitPair>& pairs, MarginKind kind,
                                                           const std::vector<int64_t>& layers,
                                                           const std::string& key_prefix, ProgressMeter& progress,
                                                           JobContext& job) {
  const double depth = static_cast<double>(layers.back() + 1) / static_cast<double>(probe.num_layers());
  std::vector<at::Tensor> groups;
  for (size_t begin = 0; begin < pairs.size();) {
    size_t end = begin;
    int64_t tokens = 0;
    double cost = 0;
    do {
      tokens += pairs[end].encoded.tokens();
      cost += EvidenceCost(config, pairs[end].encoded, depth);
      ++end;
    } while (end < pairs.size() && tokens + pairs[end].encoded.tokens() <= probe.gradient_tokens());
    const std::string key = absl::StrCat(key_prefix, "states/", begin, "-", end);
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor evidence,
                             LoadOrMeasure(config, probe, &pairs[begin], end - begin, kind, layers, key, job));
    groups.push_back(std::move(evidence));
    progress.Add(cost);
    TRIMTAB_RETURN_IF_ERROR(job.Checkpoint());
    begin = end;
  }
  const at::Tensor all = at::cat(groups);  // [pairs, parts, layers, hidden]
  // A pair whose numbers are not finite says nothing.
  std::vector<bool> finite;
  for (size_t p = 0; p < pairs.size(); ++p) {
    finite.push_back(all[static_cast<int64_t>(p)].isfinite().all().item<bool>());
    if (!finite[p]) all[static_cast<int64_t>(p)].zero_();
  }
  std::vector<LayerEvidence> evidence;
  for (size_t l = 0; l < layers.size(); ++l) {
    const at::Tensor here = all.select(2, static_cast<int64_t>(l));  // [pairs, parts, hidden]
    LayerEvidence layer{.layer = layers[l], .paired = here.select(1, kPaired), .gradients = here.select(1, kGradient)};
    if (NumParts(config) > kNegative) {
      layer.positive = here.select(1, kPositive);
      layer.negative = here.select(1, kNegative);
    }
    for (size_t p = 0; p < pairs.size(); ++p) {
      layer.has_row.push_back(finite[p] && HasRow(config, pairs[p]));
      layer.weights.push_back(pairs[p].weight);
    }
    evidence.push_back(std::move(layer));
  }
  return evidence;
}

double EvidenceCost(const GrainsConfig& config, const EncodedPair& pair, double depth_share) {
  const double gradient = kGradientCost * static_cast<double>(pair.tokens());
  if (!NeedsDeltas(config)) return gradient;
  const double prompts = config.combine() == GrainsConfig::COMBINE_PAPER ? 3 : 2;
  double rows = static_cast<double>(pair.prompt.size());
  if (PositionOf(config) != DeltaPosition::kLastPrompt) rows += static_cast<double>(pair.preferred.size());
  return gradient + prompts * rows * depth_share;
}

}  // namespace trimtab
