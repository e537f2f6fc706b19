#include "steering/methods/pair_rows_source.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/diagonal.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"
#include "steering/attribution/pca.h"
#include "steering/methods/fit_options.h"
#include "steering/methods/fit_warnings.h"
#include "steering/methods/measurements.h"

namespace trimtab {
namespace {

constexpr double kGradientCost = 4;  // of a row with gradients, in rows without
constexpr int kResamples = 20;
constexpr double kMinAgreement = 0.6;

std::string KeyOf(const FitContext& context, const RowRequest& request, const FitPair* pairs, size_t count) {
  Sha256 hash;
  UpdateWithProbe(context.probe, hash);
  hash.UpdateField(request.key);
  const auto site = static_cast<int32_t>(context.site);
  hash.Update(&site, sizeof(site));
  for (int64_t layer : context.layers) hash.Update(&layer, sizeof(layer));
  for (size_t i = 0; i < count; ++i) {
    UpdateWithPair(pairs[i].encoded, hash);
    if (request.pair_key) hash.UpdateField(request.pair_key(pairs[i]));
  }
  return absl::StrCat("rows/", hash.FinishHex());
}

absl::StatusOr<at::Tensor> LoadOrMeasure(const FitContext& context, const RowRequest& request, const FitPair* pairs,
                                         size_t count) {
  const std::string key = KeyOf(context, request, pairs, count);
  TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::string> saved, context.job.LoadPartial(key));
  std::vector<int64_t> shape = request.shape;
  shape.insert(shape.begin(), static_cast<int64_t>(count));
  const size_t bytes =
      static_cast<size_t>(std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>())) * sizeof(float);
  if (saved.has_value() && saved->size() == bytes) {
    at::Tensor rows = at::empty(shape, at::kFloat);
    std::memcpy(rows.data_ptr<float>(), saved->data(), bytes);
    return rows;
  }
  at::Tensor rows = request.measure(pairs, count).contiguous();
  TRIMTAB_RETURN_IF_ERROR(
      context.job.SavePartial(key, std::string_view(reinterpret_cast<const char*>(rows.data_ptr<float>()), bytes)));
  return rows;
}

std::vector<size_t> AllPlaces(size_t count) {
  std::vector<size_t> places(count);
  std::iota(places.begin(), places.end(), 0);
  return places;
}

}  // namespace

absl::StatusOr<at::Tensor> CollectRows(const FitContext& context, const RowRequest& request) {
  const std::vector<FitPair>& pairs = context.pairs.training;
  std::vector<at::Tensor> groups;
  for (size_t begin = 0; begin < pairs.size();) {
    size_t end = begin;
    int64_t tokens = 0;
    double cost = 0;
    do {
      tokens += pairs[end].encoded.tokens();
      cost += request.cost(pairs[end].encoded);
      ++end;
    } while (end < pairs.size() && tokens + pairs[end].encoded.tokens() <= context.probe.gradient_tokens());
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor rows, LoadOrMeasure(context, request, &pairs[begin], end - begin));
    groups.push_back(std::move(rows));
    context.progress.Add(cost);
    TRIMTAB_RETURN_IF_ERROR(context.job.Checkpoint());
    begin = end;
  }
  at::Tensor all = at::cat(groups);
  for (int64_t p = 0; p < all.size(0); ++p) {
    if (!all[p].isfinite().all().item<bool>()) all[p].zero_();
  }
  return all;
}

absl::StatusOr<at::Tensor> CollectMarginGradients(const FitContext& context) {
  return CollectRows(context, MarginGradientRows(context));
}

RowRequest MarginGradientRows(const FitContext& context) {
  const auto measure = [&context](const FitPair* pairs, size_t count) {
    std::vector<const EncodedPair*> encoded;
    for (size_t i = 0; i < count; ++i) encoded.push_back(&pairs[i].encoded);
    return context.probe.SteeringGradients(encoded, context.pairs.kind, context.layers, ApplyToOf(context.options),
                                           context.site);
  };
  return {.key = absl::StrCat("margin_gradient/", static_cast<int>(context.pairs.kind), "/",
                              static_cast<int>(ApplyToOf(context.options))),
          .shape = {static_cast<int64_t>(context.layers.size()), context.probe.hidden_size()},
          .measure = measure,
          .cost = MarginGradientCost};
}

double MarginGradientCost(const EncodedPair& pair) { return kGradientCost * static_cast<double>(pair.tokens()); }

at::Tensor AnswerDifferences(const FitContext& context, const FitPair* pairs, size_t count, DeltaPosition position,
                             const AnswerTokens& tokens) {
  std::vector<at::Tensor> prompts;
  std::vector<std::vector<TokenId>> answers;
  for (size_t i = 0; i < count; ++i) {
    const at::Tensor prompt = context.probe.Embed(pairs[i].encoded.prompt);
    for (const bool preferred : {true, false}) {
      prompts.push_back(prompt);
      answers.push_back(tokens(pairs[i].encoded, preferred));
    }
  }
  const at::Tensor states = context.probe.CaptureStates(prompts, answers, position, context.layers, context.site);
  const at::Tensor by_pair =
      states.view({static_cast<int64_t>(count), 2, states.size(1), states.size(2)});  // [count, 2, layers, hidden]
  return by_pair.select(1, 0) - by_pair.select(1, 1);
}

double AnswerDifferenceCost(const FitContext& context, const EncodedPair& pair) {
  const double depth = static_cast<double>(context.layers.back() + 1) / static_cast<double>(context.probe.num_layers());
  return depth * static_cast<double>(pair.tokens() + static_cast<int64_t>(pair.prompt.size()));
}

double PairRowsSource::Cost(const FitContext& context) const {
  const RowRequest request = Rows(context);
  double cost = 0;
  for (const FitPair& pair : context.pairs.training) {
    cost += request.cost(pair.encoded);
    if (!RowsAreGradients()) cost += MarginGradientCost(pair.encoded);
  }
  return cost;
}

at::Tensor PairRowsSource::Combine(const at::Tensor& rows, const at::Tensor& weights) const {
  return at::matmul(weights, rows) / weights.sum();
}

at::Tensor PairRowsSource::DirectionOf(const std::vector<size_t>& places, int64_t layer) const {
  const at::Tensor chosen = at::tensor(std::vector<int64_t>(places.begin(), places.end()));
  const at::Tensor direction =
      Combine(rows_.select(1, layer).index_select(0, chosen), weights_.index_select(0, chosen));
  const double norm = direction.norm().item<double>();
  return norm > 0 && std::isfinite(norm) ? direction / norm : at::zeros_like(direction);
}

absl::StatusOr<std::vector<DirectionSet>> PairRowsSource::Candidates(const FitContext& context) {
  const std::vector<FitPair>& pairs = context.pairs.training;
  if (ComparesAnswers() && !IsPreference(context.pairs.kind)) {
    return PairsDegenerate(
        "this method compares two answers: the pairs need dispreferred answers and a preference "
        "objective",
        0);
  }
  context.progress.Start(JobPhase::kMasking);
  TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor rows, CollectRows(context, Rows(context)));
  at::Tensor gradients;  // [layers, hidden] double; undefined when they are not wanted
  std::vector<double> weights;
  for (const FitPair& pair : pairs) weights.push_back(pair.weight);
  rows_ = Prepare(context, rows.to(at::kDouble));
  weights_ = at::tensor(weights, at::kDouble);
  if (!RowsAreGradients()) {
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor by_pair, CollectMarginGradients(context));
    gradients = at::matmul(weights_, by_pair.to(at::kDouble).flatten(1)).view({rows_.size(1), rows_.size(2)});
  }

  context.progress.Start(JobPhase::kDecomposing);
  std::vector<LayerDirection> directions;
  for (size_t l = 0; l < context.layers.size(); ++l) {
    const auto place = static_cast<int64_t>(l);
    const at::Tensor own = rows_.select(1, place), mean = at::matmul(weights_, own) / weights_.sum();
    const at::Tensor direction = DirectionOf(AllPlaces(pairs.size()), place).to(at::kFloat).contiguous();
    if (direction.norm().item<float>() == 0) {
      return PairsDegenerate("the pairs hold no signal: no direction separates the answers",
                             static_cast<int64_t>(pairs.size()));
    }
    const float* values = direction.data_ptr<float>();
    LayerDirection result{.layer = context.layers[l]};
    result.direction.assign(values, values + direction.numel());
    result.explained_variance =
        static_cast<float>(UncentredPca(own * weights_.sqrt().unsqueeze(1), 1).explained_variance);
    result.cosine_to_mean = static_cast<float>(Cosine(direction, mean));
    if (gradients.defined()) {
      result.cosine_to_margin_gradient = static_cast<float>(Cosine(direction, gradients[place]));
    } else if (RowsAreGradients()) {
      result.cosine_to_margin_gradient = result.cosine_to_mean;
    }
    if (StrengthModeOf(context.options) == StrengthMode::kAbsolute) result.weight = AbsoluteWeight(mean);
    directions.push_back(std::move(result));
    TRIMTAB_RETURN_IF_ERROR(context.job.Checkpoint());
  }
  return CandidatesOf(context, std::move(directions));
}

float PairRowsSource::Stability(const FitContext& context, const LayerDirection& direction) const {
  const auto layer = std::find(context.layers.begin(), context.layers.end(), direction.layer) - context.layers.begin();
  return static_cast<float>(BootstrapStability(
      at::tensor(direction.direction), context.pairs.training.size(),
      [&](const std::vector<size_t>& places) { return DirectionOf(places, layer); }, kResamples,
      context.options.seed()));
}

void PairRowsSource::Describe(const FitContext& context, const DirectionSet& chosen, FitReport& report) const {
  report.pair_count = static_cast<int64_t>(context.pairs.training.size());
  for (std::string& warning : DisagreementWarnings(chosen)) report.warnings.push_back(std::move(warning));
  // Each pair against the others: its own row would agree with itself.
  const auto layer =
      std::find(context.layers.begin(), context.layers.end(), chosen.front().layer) - context.layers.begin();
  const at::Tensor rows = rows_.select(1, layer) * weights_.unsqueeze(1);
  const at::Tensor gram = at::matmul(rows, rows.t());  // [P, P]
  const double agrees = ((gram.sum(1) - gram.diagonal()) > 0).sum().item<double>() / static_cast<double>(rows.size(0));
  if (agrees < kMinAgreement) {
    report.warnings.push_back(absl::StrFormat(
        "The pairs disagree about the direction: only %.0f %% of them point the way of the others.", 100 * agrees));
  }
}

}  // namespace trimtab
