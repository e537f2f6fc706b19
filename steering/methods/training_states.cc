#include "steering/methods/training_states.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "steering/byte_io.h"
#include "steering/methods/grains_config.h"
#include "steering/methods/pair_rows_source.h"

namespace trimtab {
namespace {

using methods::v1::GrainsConfig;

// Parts of a pair's differences, in this order on the second axis of a group's tensor.
enum Part { kPaired = 0, kPositive = 1, kNegative = 2 };

int64_t NumParts(const GrainsConfig& config) { return config.combine() == GrainsConfig::COMBINE_PAPER ? 3 : 1; }

bool HasRow(const GrainsConfig& config, const PairScores& scores) {
  if (config.drop_low_confidence() && scores.low_confidence) return false;
  return !scores.sides.positive.empty() && !scores.sides.negative.empty();
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

// Differences of one group: float32 [pairs, parts, layers, hidden]; zeros for pairs without a row.
at::Tensor Measure(const GrainsConfig& config, const FitContext& context, const PairScores* scores,
                   const FitPair* pairs, size_t count) {
  const ModelProbe& probe = context.probe;
  at::Tensor deltas = at::zeros({static_cast<int64_t>(count), NumParts(config),
                                 static_cast<int64_t>(context.layers.size()), probe.hidden_size()});
  const at::Tensor mask = MaskOf(config, probe);
  const bool with_plain = config.combine() == GrainsConfig::COMBINE_PAPER;
  std::vector<at::Tensor> prompts;  // per pair with a row: without S-, without S+, and whole when sides are needed
  std::vector<std::vector<TokenId>> responses;
  std::vector<int64_t> owners;
  for (size_t i = 0; i < count; ++i) {
    if (!HasRow(config, scores[i])) continue;
    owners.push_back(static_cast<int64_t>(i));
    const at::Tensor prompt = probe.Embed(pairs[i].encoded.prompt);
    for (const std::vector<int64_t>* side : {&scores[i].sides.negative, &scores[i].sides.positive}) {
      at::Tensor masked = prompt.clone();
      for (int64_t position : *side) masked[position].copy_(mask);
      prompts.push_back(masked);
    }
    if (with_plain) prompts.push_back(prompt);
    responses.insert(responses.end(), with_plain ? 3 : 2, pairs[i].encoded.preferred);
  }
  if (prompts.empty()) return deltas;
  const at::Tensor states = probe.CaptureStates(prompts, responses, PositionOf(config), context.layers);
  const int64_t stride = with_plain ? 3 : 2;
  for (size_t i = 0; i < owners.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i) * stride;
    deltas[owners[i]][kPaired].copy_(states[row] - states[row + 1]);
    if (!with_plain) continue;
    deltas[owners[i]][kPositive].copy_(states[row + 2] - states[row + 1]);
    deltas[owners[i]][kNegative].copy_(states[row + 2] - states[row]);
  }
  return deltas;
}

double DeltaCost(const GrainsConfig& config, const FitContext& context, const EncodedPair& pair) {
  const double depth = static_cast<double>(context.layers.back() + 1) / static_cast<double>(context.probe.num_layers());
  const double prompts = config.combine() == GrainsConfig::COMBINE_PAPER ? 3 : 2;
  double rows = static_cast<double>(pair.prompt.size());
  if (PositionOf(config) != DeltaPosition::kLastPrompt) rows += static_cast<double>(pair.preferred.size());
  return prompts * rows * depth;
}

RowRequest DeltaRows(const GrainsConfig& config, const FitContext& context, const std::vector<PairScores>& scores) {
  const FitPair* first = context.pairs.training.data();
  const auto scores_of = [first, &scores](const FitPair& pair) { return scores.data() + (&pair - first); };
  return {.key = absl::StrCat("deltas/", static_cast<int>(config.mask()), "/", static_cast<int>(PositionOf(config)),
                              "/", NumParts(config)),
          .pair_key =
              [&config, scores_of](const FitPair& pair) {
                if (!HasRow(config, *scores_of(pair))) return std::string();
                ByteWriter writer;
                writer.Numbers(scores_of(pair)->sides.positive);
                writer.Numbers(scores_of(pair)->sides.negative);
                return writer.Take();
              },
          .shape = {NumParts(config), static_cast<int64_t>(context.layers.size()), context.probe.hidden_size()},
          .measure = [&config, &context, scores_of](
                         const FitPair* pairs,
                         size_t count) { return Measure(config, context, scores_of(*pairs), pairs, count); },
          .cost = [&config, &context](const EncodedPair& pair) { return DeltaCost(config, context, pair); }};
}

}  // namespace

absl::StatusOr<std::vector<LayerEvidence>> CollectEvidence(const GrainsConfig& config, const FitContext& context,
                                                           const std::vector<PairScores>& scores) {
  TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor gradients, CollectMarginGradients(context));  // [pairs, layers, hidden]
  TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor deltas, CollectRows(context, DeltaRows(config, context, scores)));
  const std::vector<FitPair>& pairs = context.pairs.training;
  std::vector<bool> has_row;
  for (size_t p = 0; p < pairs.size(); ++p) {
    // A pair whose numbers are not finite has become zeros and says nothing.
    has_row.push_back(HasRow(config, scores[p]) && deltas[static_cast<int64_t>(p)].any().item<bool>());
  }
  std::vector<LayerEvidence> evidence;
  for (size_t l = 0; l < context.layers.size(); ++l) {
    const auto place = static_cast<int64_t>(l);
    const at::Tensor here = deltas.select(2, place);  // [pairs, parts, hidden]
    LayerEvidence layer{.layer = context.layers[l],
                        .paired = here.select(1, kPaired),
                        .gradients = gradients.select(1, place),
                        .has_row = has_row};
    if (NumParts(config) > kNegative) {
      layer.positive = here.select(1, kPositive);
      layer.negative = here.select(1, kNegative);
    }
    for (const FitPair& pair : pairs) layer.weights.push_back(pair.weight);
    evidence.push_back(std::move(layer));
  }
  return evidence;
}

double EvidenceCost(const GrainsConfig& config, const FitContext& context, const EncodedPair& pair) {
  return MarginGradientCost(pair) + DeltaCost(config, context, pair);
}

}  // namespace trimtab
