#include "steering/methods/iti.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/status_macros.h"
#include "steering/attribution/pca.h"
#include "steering/attribution/random.h"
#include "steering/methods/fit_options.h"
#include "steering/methods/fit_warnings.h"
#include "steering/methods/head_probes.h"
#include "steering/methods/pair_rows_source.h"

namespace trimtab {
namespace {

using methods::v1::FitOptions;
using methods::v1::ItiConfig;
using methods::v1::NlItiConfig;

constexpr int32_t kHeads = 48;
constexpr int64_t kHeadShare = 10;  // one head of so many at most, unless the configuration says a number
constexpr float kProbeValidation = 0.2f;
constexpr double kMinAccuracy = 0.6;
constexpr int kResamples = 20;
constexpr uint64_t kSplitStream = 40, kOrderStream = 41, kNetworkStream = 1000;  // of the seed

// What the two methods differ in.
struct Rule {
  int32_t heads = 0;  // 0: by the model
  float validation_fraction = kProbeValidation;
  int64_t probe_tokens = 1, direction_tokens = 1;
  // Of one layer's heads: [H, N, head_dim] on each side.
  std::function<ProbeScores(const HeadSamples& training, const HeadSamples& unseen, uint64_t seed, int64_t layer)>
      score;
};

struct Head {
  int64_t place = 0;  // of its layer in context.layers
  int64_t head = 0;
  double accuracy = 0, cross_entropy = 0;
};

class ItiSource final : public DirectionSource {
 public:
  explicit ItiSource(Rule rule) : rule_(std::move(rule)) {}

  double Cost(const FitContext& context) const override {
    const RowRequest request = Rows(context);
    double cost = 0;
    for (const FitPair& pair : context.pairs.training) {
      cost += request.cost(pair.encoded) + MarginGradientCost(pair.encoded);
    }
    return cost;
  }

  absl::StatusOr<std::vector<DirectionSet>> Candidates(const FitContext& context) override {
    if (!IsPreference(context.pairs.kind)) {
      return PairsDegenerate(
          "this method compares two answers: the pairs need dispreferred answers and a preference objective", 0);
    }
    context.progress.Start(JobPhase::kMasking);
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor rows, CollectRows(context, Rows(context)));
    // [P, 2 answers, layers, H, head_dim]
    const at::Tensor by_head = rows.unflatten(-1, {context.probe.num_heads(), context.probe.head_dim()});
    states_ = by_head.select(1, Separate() ? 1 : 0);
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor gradients, CollectMarginGradients(context));

    context.progress.Start(JobPhase::kDecomposing);
    TRIMTAB_RETURN_IF_ERROR(ChooseHeads(context, by_head.select(1, 0)));
    std::map<int64_t, std::vector<int64_t>> heads;  // by place of the layer
    for (const Head& head : chosen_) heads[head.place].push_back(head.head);
    std::vector<int64_t> layers;
    std::vector<at::Tensor> edits;
    for (const auto& [place, own] : heads) {
      layers.push_back(context.layers[static_cast<size_t>(place)]);
      edits.push_back(EditOf(AllPairs(context), place).to(at::kFloat));
    }
    const at::Tensor folded = context.probe.FoldHeads(TextsToFold(context), layers, at::stack(edits));

    std::vector<LayerDirection> directions;
    for (const auto& [place, own] : heads) {
      const at::Tensor sum = folded[static_cast<int64_t>(directions.size())].contiguous();
      const float norm = sum.norm().item<float>();
      if (!std::isfinite(norm) || norm == 0) {
        return PairsDegenerate("the pairs hold no signal: no head tells the answers apart",
                               static_cast<int64_t>(context.pairs.training.size()));
      }
      const at::Tensor unit = sum / norm;
      LayerDirection direction{.layer = layers[directions.size()], .weight = norm};
      direction.direction.assign(unit.data_ptr<float>(), unit.data_ptr<float>() + unit.numel());
      const at::Tensor differences =
          (states_.select(1, 0) - states_.select(1, 1)).select(1, place);  // [P, H, head_dim]
      const at::Tensor own_rows = differences.index_select(1, at::tensor(own)).flatten(1).contiguous();
      direction.explained_variance = static_cast<float>(UncentredPca(own_rows, 1).explained_variance);
      const at::Tensor edit = EditOf(AllPairs(context), place).view_as(differences[0]);
      direction.cosine_to_mean =
          static_cast<float>(Cosine(edit.index_select(0, at::tensor(own)).flatten().to(at::kFloat), own_rows.mean(0)));
      direction.cosine_to_margin_gradient = static_cast<float>(Cosine(unit, gradients.select(1, place).mean(0)));
      directions.push_back(std::move(direction));
      TRIMTAB_RETURN_IF_ERROR(context.job.Checkpoint());
    }
    return Sets(context, std::move(directions));
  }

  // Of the heads' edits, before they are folded: the projection needs no pairs.
  float Stability(const FitContext& context, const LayerDirection& direction) const override {
    const auto place =
        std::find(context.layers.begin(), context.layers.end(), direction.layer) - context.layers.begin();
    const auto edit = [&](const std::vector<size_t>& pairs) { return EditOf(pairs, place).to(at::kFloat); };
    return static_cast<float>(BootstrapStability(edit(AllPairs(context)), context.pairs.training.size(), edit,
                                                 kResamples, context.options.seed()));
  }

  void Describe(const FitContext& context, const DirectionSet& chosen, FitReport& report) const override {
    report.pair_count = static_cast<int64_t>(context.pairs.training.size());
    for (std::string& warning : DisagreementWarnings(chosen)) report.warnings.push_back(std::move(warning));
    double sum = 0;
    for (const Head& head : chosen_) sum += head.accuracy;
    const double accuracy = sum / static_cast<double>(chosen_.size());
    if (accuracy < kMinAccuracy) {
      report.warnings.push_back(absl::StrFormat(
          "The attention heads hardly tell the answers apart: the %d chosen ones are right about %.0f %% of the "
          "training answers that their probes had not seen.",
          chosen_.size(), 100 * accuracy));
    }
  }

 private:
  // Whether probes and directions look at different tokens.
  bool Separate() const { return rule_.probe_tokens != rule_.direction_tokens; }

  // Heads' values of the preferred and the dispreferred answer, for probes and, where they differ, for directions:
  // [1 or 2, 2, layers, head_width] per pair.
  RowRequest Rows(const FitContext& context) const {
    std::vector<int64_t> windows = {rule_.probe_tokens};
    if (Separate()) windows.push_back(rule_.direction_tokens);
    const auto measure = [&context, windows](const FitPair* pairs, size_t count) {
      std::vector<at::Tensor> prompts;
      std::vector<std::vector<TokenId>> answers;
      for (size_t i = 0; i < count; ++i) {
        const at::Tensor prompt = context.probe.Embed(pairs[i].encoded.prompt);
        prompts.insert(prompts.end(), 2, prompt);
        answers.insert(answers.end(), {pairs[i].encoded.preferred, pairs[i].encoded.dispreferred});
      }
      std::vector<at::Tensor> states;
      for (int64_t window : windows) {
        states.push_back(context.probe
                             .CaptureStates(prompts, answers, DeltaPosition::kMeanResponse, context.layers,
                                            Site::kAttentionHeads, window)
                             .unflatten(0, {static_cast<int64_t>(count), 2}));
      }
      return at::stack(states, 1);  // [count, windows, 2, layers, head_width]
    };
    return {.key = absl::StrCat("heads/", rule_.probe_tokens, "/", rule_.direction_tokens),
            .shape = {static_cast<int64_t>(windows.size()), 2, static_cast<int64_t>(context.layers.size()),
                      context.probe.head_width()},
            .measure = measure,
            .cost = [&context, passes = windows.size()](const EncodedPair& pair) {
              return static_cast<double>(passes) * AnswerDifferenceCost(context, pair);
            }};
  }

  // states: [P, 2, layers, H, head_dim].
  absl::Status ChooseHeads(const FitContext& context, const at::Tensor& states) {
    const auto pairs = static_cast<size_t>(states.size(0));
    const uint64_t seed = context.options.seed();
    const std::vector<size_t> shuffled = Random(seed, kSplitStream).Permutation(pairs);
    const auto kept = std::clamp<size_t>(
        static_cast<size_t>(std::lround(rule_.validation_fraction * static_cast<float>(pairs))), 1, pairs - 1);
    const auto samples = [&](const at::Tensor& of_layer, size_t begin, size_t end) {  // of_layer: [P, 2, H, head_dim]
      const at::Tensor places = at::tensor(std::vector<int64_t>(shuffled.begin() + static_cast<ptrdiff_t>(begin),
                                                                shuffled.begin() + static_cast<ptrdiff_t>(end)));
      const at::Tensor own = of_layer.index_select(0, places).flatten(0, 1);  // [N, H, head_dim]
      return HeadSamples{.values = own.transpose(0, 1).contiguous(),
                         .labels = at::tensor(std::vector<float>{1, 0}).repeat({static_cast<int64_t>(end - begin)})};
    };
    std::vector<Head> all;
    for (int64_t place = 0; place < states.size(2); ++place) {
      const at::Tensor of_layer = states.select(2, place);
      const ProbeScores scores = rule_.score(samples(of_layer, 0, pairs - kept), samples(of_layer, pairs - kept, pairs),
                                             seed, context.layers[static_cast<size_t>(place)]);
      for (int64_t head = 0; head < states.size(3); ++head) {
        all.push_back({place, head, scores.accuracy[head].item<double>(), scores.cross_entropy[head].item<double>()});
      }
      TRIMTAB_RETURN_IF_ERROR(context.job.Checkpoint());
    }
    // The best first; of equals the surer one, then the lower one.
    std::stable_sort(all.begin(), all.end(), [](const Head& a, const Head& b) {
      return a.accuracy != b.accuracy ? a.accuracy > b.accuracy : a.cross_entropy < b.cross_entropy;
    });
    const int64_t of_model = context.probe.num_layers() * context.probe.num_heads();
    const int64_t wanted =
        rule_.heads > 0 ? rule_.heads : std::clamp<int64_t>(of_model / kHeadShare, 1, static_cast<int64_t>(kHeads));
    all.resize(std::min(all.size(), static_cast<size_t>(wanted)));
    chosen_ = std::move(all);
    return absl::OkStatus();
  }

  static std::vector<size_t> AllPairs(const FitContext& context) {
    std::vector<size_t> all(context.pairs.training.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = i;
    return all;
  }

  // sigma * theta of a layer's chosen heads, zeros for the others, from some pairs (repetitions allowed): double
  // [head_width].
  at::Tensor EditOf(const std::vector<size_t>& pairs, int64_t place) const {
    const at::Tensor places = at::tensor(std::vector<int64_t>(pairs.begin(), pairs.end()));
    const at::Tensor states = states_.select(2, place).index_select(0, places).to(at::kDouble);  // [M, 2, H, head_dim]
    at::Tensor edit = at::zeros({states.size(2), states.size(3)}, at::kDouble);
    for (const Head& head : chosen_) {
      if (head.place != place) continue;
      const at::Tensor own = states.select(2, head.head);  // [M, 2, head_dim]
      const at::Tensor difference = own.select(1, 0).mean(0) - own.select(1, 1).mean(0);
      const double norm = difference.norm().item<double>();
      if (norm == 0) continue;
      const at::Tensor theta = difference / norm;
      const at::Tensor along = (own * theta).sum(-1);  // [M, 2]
      const double sigma = (along - along.mean()).square().mean().sqrt().item<double>();
      edit[head.head].copy_(sigma * theta);
    }
    return edit.flatten();
  }

  // Prompts with true answers, as many as fit one pass.
  static std::vector<std::vector<TokenId>> TextsToFold(const FitContext& context) {
    std::vector<std::vector<TokenId>> texts;
    int64_t tokens = 0;
    for (const FitPair& pair : context.pairs.training) {
      std::vector<TokenId> text = pair.encoded.prompt;
      text.insert(text.end(), pair.encoded.preferred.begin(), pair.encoded.preferred.end());
      tokens += static_cast<int64_t>(text.size());
      if (!texts.empty() && tokens > context.probe.gradient_tokens()) break;
      texts.push_back(std::move(text));
    }
    return texts;
  }

  // A relative strength is that of the layer with the largest edit.
  static std::vector<DirectionSet> Sets(const FitContext& context, std::vector<LayerDirection> directions) {
    if (StrengthModeOf(context.options) == StrengthMode::kRelative) {
      float largest = 0;
      for (const LayerDirection& direction : directions) largest = std::max(largest, direction.weight);
      for (LayerDirection& direction : directions) direction.weight = context.together ? direction.weight / largest : 1;
    }
    if (context.together) return {std::move(directions)};
    std::vector<DirectionSet> sets;
    for (LayerDirection& direction : directions) sets.push_back({std::move(direction)});
    return sets;
  }

  const Rule rule_;
  at::Tensor states_;  // [P, 2, layers, H, head_dim] float32: what directions come from
  std::vector<Head> chosen_;
};

// Checks what both have in common and makes the recipe.
template <typename Config>
absl::StatusOr<FitRecipe> MakeRecipe(std::string method, Config resolved, Rule rule, ConfigChecker& checker) {
  FitOptions defaults;
  defaults.set_strength_mode(methods::v1::STRENGTH_MODE_ABSOLUTE);
  defaults.set_norm(methods::v1::NORM_NONE);
  *resolved.mutable_fit() = ResolveFitOptions(resolved.fit(), defaults, checker);
  if (resolved.has_heads()) checker.Range("heads", resolved.heads(), 1, 65536);
  if (!resolved.has_probe_validation_fraction()) resolved.set_probe_validation_fraction(kProbeValidation);
  checker.AboveZero("probe_validation_fraction", resolved.probe_validation_fraction(), 0.5);
  TRIMTAB_RETURN_IF_ERROR(checker.status());
  rule.heads = resolved.heads();
  rule.validation_fraction = resolved.probe_validation_fraction();
  return FitRecipe{.method = std::move(method),
                   .site = Site::kAttentionOutput,
                   .all_layers = true,
                   .options = resolved.fit(),
                   .resolved_config = resolved.SerializeAsString(),
                   .source = [rule] { return std::make_unique<ItiSource>(rule); }};
}

}  // namespace

absl::StatusOr<FitRecipe> ItiRecipe(const ItiConfig& config) {
  ConfigChecker checker;
  ItiConfig resolved = config;
  if (!resolved.has_inverse_regularization()) resolved.set_inverse_regularization(1);
  checker.AboveZero("inverse_regularization", resolved.inverse_regularization(), 1e6);
  const double c = resolved.inverse_regularization();
  return MakeRecipe("iti", resolved,
                    {.score = [c](const HeadSamples& training, const HeadSamples& unseen, uint64_t,
                                  int64_t) { return Score(FitLogisticProbes(training, c), unseen); }},
                    checker);
}

absl::StatusOr<FitRecipe> NlItiRecipe(const NlItiConfig& config) {
  ConfigChecker checker;
  NlItiConfig resolved = config;
  if (!resolved.has_probe_tokens()) resolved.set_probe_tokens(4);
  if (!resolved.has_direction_tokens()) resolved.set_direction_tokens(6);
  if (!resolved.has_epochs()) resolved.set_epochs(10);
  checker.Range("probe_tokens", resolved.probe_tokens(), 1, 1024);
  checker.Range("direction_tokens", resolved.direction_tokens(), 1, 1024);
  checker.Range("epochs", resolved.epochs(), 1, 1000);
  const auto score = [epochs = resolved.epochs()](const HeadSamples& training, const HeadSamples& unseen, uint64_t seed,
                                                  int64_t layer) {
    Random random(seed, kOrderStream);
    std::vector<std::vector<size_t>> orders;
    for (int32_t epoch = 0; epoch < epochs; ++epoch) {
      orders.push_back(random.Permutation(static_cast<size_t>(training.labels.size(0))));
    }
    return TrainNetworkProbes(InitialNetworkProbes(training.values.size(0), training.values.size(2), seed,
                                                   kNetworkStream + static_cast<uint64_t>(layer)),
                              training, unseen, orders);
  };
  return MakeRecipe(
      "nl_iti", resolved,
      {.probe_tokens = resolved.probe_tokens(), .direction_tokens = resolved.direction_tokens(), .score = score},
      checker);
}

}  // namespace trimtab
