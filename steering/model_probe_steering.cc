// ModelProbe's measurements of steering: effect on pairs and cost on neutral text.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "models/attention/dense_attention.h"
#include "server/base/status_macros.h"
#include "steering/model_probe.h"
#include "steering/probe_taps.h"
#include "steering/runtime/steering_bank.h"
#include "steering/runtime/steering_tap.h"
#include "steering/token_tree.h"

namespace trimtab {
namespace {

constexpr int64_t kKlRows = 128;  // rows of logits held at a time, twice
constexpr int64_t kKlStride = 2;  // the output head costs more than the blocks above: every second token is scored

int64_t DistinctVectors(const std::vector<SteeringSetting>& settings, const std::vector<size_t>& places) {
  std::unordered_set<std::string> digests;
  for (size_t s : places) digests.insert(settings[s].vector->digest());
  return static_cast<int64_t>(digests.size());
}

// The first block that must run steered: a vector of a block's output changes what enters the block after it.
int64_t FirstBlock(const SteeringVector& vector) {
  const int64_t layer = vector.spec().layers.front().layer;
  return vector.spec().site == Site::kBlockOutput ? layer + 1 : layer;
}

// The residual stream that enters block `first`, with what the block before it is steered by.
at::Tensor Entering(SteeringTap& tap, int64_t first, at::Tensor hidden) {
  return first == 0 ? hidden : tap.At(Site::kBlockOutput, first - 1, std::move(hidden));
}

// Token ids of the rows that Pack makes for a pair.
std::vector<TokenId> PackedTokens(const EncodedPair& pair, MarginKind kind) {
  std::vector<TokenId> tokens = pair.prompt;
  tokens.insert(tokens.end(), pair.preferred.begin(), pair.preferred.end() - 1);
  if (IsPreference(kind) && !pair.dispreferred.empty()) {
    tokens.insert(tokens.end(), pair.dispreferred.begin(), pair.dispreferred.end() - 1);
  }
  return tokens;
}

}  // namespace

absl::StatusOr<std::vector<std::vector<double>>> ModelProbe::SteeredMargins(
    const std::vector<const EncodedPair*>& pairs, MarginKind kind, const std::vector<SteeringSetting>& settings,
    JobContext& job) const {
  at::NoGradGuard no_grad;
  // Settings by the first block whose input or inside they steer: before it nothing changes, so nothing is computed
  // again.
  std::map<int64_t, std::vector<size_t>> places;
  std::vector<size_t> unsteered;
  for (size_t s = 0; s < settings.size(); ++s) {
    if (settings[s].vector == nullptr || settings[s].strength == 0) {
      unsteered.push_back(s);
    } else {
      places[FirstBlock(*settings[s].vector)].push_back(s);
    }
  }
  std::vector<int64_t> before;  // the blocks before those
  for (const auto& [first, own] : places) before.push_back(first - 1);

  std::vector<std::vector<double>> margins;
  for (size_t begin = 0; begin < pairs.size();) {
    std::vector<const EncodedPair*> batch;
    int64_t tokens = 0;
    do {
      batch.push_back(pairs[begin]);
      tokens += pairs[begin]->tokens();
      ++begin;
    } while (begin < pairs.size() && tokens + pairs[begin]->tokens() <= options_.batch_tokens);

    const Packed packed = Pack(batch, kind);
    std::vector<at::Tensor> embeddings;
    for (const EncodedPair* pair : batch) embeddings.push_back(Embed(PackedTokens(*pair, kind)));
    DenseAttention attention;
    CaptureTap tap(before, at::arange(packed.layout.num_tokens, at::kLong));
    const at::Tensor entering = at::cat(embeddings);
    const at::Tensor hidden = loaded_->model->Forward(
        entering, {.layout = packed.layout, .attention = attention, .tap = tap, .arithmetic = kArithmetic});
    std::vector<double> plain(batch.size(), 0.0);
    if (!unsteered.empty()) AddScores(hidden, packed.scored, plain);
    TRIMTAB_RETURN_IF_ERROR(job.Checkpoint());

    std::vector<double> outputs(batch.size() * settings.size(), 0.0);
    size_t group = 0;
    for (const auto& [first, own] : places) {
      const at::Tensor& states = first == 0 ? entering : tap.states()[group];
      ++group;
      TRIMTAB_RETURN_IF_ERROR(
          AddSteered(batch, packed, states, first, kind, settings, own, settings.size(), outputs, job));
    }
    for (size_t p = 0; p < batch.size(); ++p) {
      const auto first = outputs.begin() + static_cast<ptrdiff_t>(p * settings.size());
      margins.emplace_back(first, first + static_cast<ptrdiff_t>(settings.size()));
      for (size_t s : unsteered) margins.back()[s] = plain[p];
    }
  }
  return margins;
}

absl::Status ModelProbe::AddSteered(const std::vector<const EncodedPair*>& pairs, const Packed& packed,
                                    const at::Tensor& states, int64_t first, MarginKind kind,
                                    const std::vector<SteeringSetting>& settings, const std::vector<size_t>& places,
                                    size_t stride, std::vector<double>& outputs, JobContext& job) const {
  SteeringBank bank(DistinctVectors(settings, places), num_layers(), hidden_size());
  std::map<size_t, int32_t> slots;
  for (size_t s : places) slots[s] = *bank.Acquire(settings[s].vector);
  const bool mean = kind == MarginKind::kPrefMean || kind == MarginKind::kLikelihoodMean;

  TokenForest forest;
  std::vector<ScoredToken> scored;
  SteeringRows rows;
  const auto run = [&]() -> absl::Status {
    if (scored.empty()) return absl::OkStatus();
    rows.entries.resize(static_cast<size_t>(forest.num_rows()) * kMaxSelections);
    SteeringTap tap(bank, rows);
    const TokenLayout layout = forest.Layout();
    TreeAttention attention(forest, loaded_->model->dtype());
    const at::Tensor hidden = loaded_->model->Forward(
        Entering(tap, first, forest.Embeddings()),
        {.layout = layout, .attention = attention, .tap = tap, .first_layer = first, .arithmetic = kArithmetic});
    AddScores(hidden, scored, outputs);
    forest = TokenForest();
    scored.clear();
    rows.entries.clear();
    return job.Checkpoint();
  };

  for (size_t p = 0; p < pairs.size(); ++p) {
    const EncodedPair& pair = *pairs[p];
    const auto length = static_cast<int64_t>(pair.prompt.size());
    const at::Tensor prompt = states.narrow(0, packed.prompt_begin[p], length);
    std::vector<const std::vector<TokenId>*> answers = {&pair.preferred};
    if (IsPreference(kind) && !pair.dispreferred.empty()) answers.push_back(&pair.dispreferred);
    std::vector<at::Tensor> answer_states;
    int64_t answer_begin = packed.answers_begin[p];
    for (const auto* answer : answers) {
      const auto count = static_cast<int64_t>(answer->size()) - 1;
      answer_states.push_back(states.narrow(0, answer_begin, count));
      answer_begin += count;
    }

    TokenForest::Place root;  // prompt rows before the first steered one, shared by the settings
    int64_t root_rows = -1;
    for (size_t s : places) {
      const SteeringSetting& setting = settings[s];
      const int64_t from = PlannedSteering{.apply_to = setting.apply_to}.steer_from(length);
      const int64_t needed = pair.tokens() - from;
      if (forest.num_rows() > 0 && forest.num_rows() + from + needed > options_.batch_tokens) {
        TRIMTAB_RETURN_IF_ERROR(run());
        root_rows = -1;
      }
      if (from != root_rows || from == 0) {
        root = forest.Add({}, prompt.narrow(0, 0, from));
        root_rows = from;
      }
      const int64_t steered_begin = forest.num_rows();
      const TokenForest::Place end = forest.Add(root, prompt.narrow(0, from, length - from));
      for (size_t a = 0; a < answers.size(); ++a) {
        const TokenForest::Place answer_end = forest.Add(end, answer_states[a]);
        const auto size = static_cast<int64_t>(answers[a]->size());
        const double weight = (a == 0 ? 1.0 : -1.0) / (mean ? static_cast<double>(size) : 1.0);
        for (int64_t t = 0; t < size; ++t) {
          const int64_t row = t == 0 ? forest.last_row(end) : forest.last_row({answer_end.segment, t});
          scored.push_back({row, (*answers[a])[static_cast<size_t>(t)], static_cast<int64_t>(p * stride + s), weight});
        }
      }
      rows.entries.resize(static_cast<size_t>(forest.num_rows()) * kMaxSelections);
      for (int64_t row = steered_begin; row < forest.num_rows(); ++row) {
        rows.entries[static_cast<size_t>(row) * kMaxSelections] = {slots.at(s), setting.strength};
      }
    }
  }
  return run();
}

int64_t ModelProbe::neutral_tokens() const {
  int64_t tokens = 0;
  for (const std::vector<TokenId>& chunk : options_.neutral_text) tokens += static_cast<int64_t>(chunk.size());
  return tokens;
}

std::vector<int64_t> ModelProbe::NeutralTextRows() const {
  const std::optional<TokenId> start = TextStart(*loaded_->tokenizer);
  std::vector<int64_t> rows;
  int64_t row = 0;
  for (const std::vector<TokenId>& chunk : options_.neutral_text) {
    for (size_t i = 0; i < chunk.size(); ++i, ++row) {
      if (i > 0 || chunk[i] != start) rows.push_back(row);
    }
  }
  return rows;
}

at::Tensor ModelProbe::RunNeutral(at::Tensor hidden, int64_t first, int64_t num_layers, LayerTap& tap) const {
  std::vector<SequenceSpan> spans;
  for (const std::vector<TokenId>& chunk : options_.neutral_text) {
    spans.push_back({.length = static_cast<int64_t>(chunk.size())});
  }
  const TokenLayout layout = TokenLayout::Dense(std::move(spans));
  DenseAttention attention;
  return loaded_->model->Forward(std::move(hidden), {.layout = layout,
                                                     .attention = attention,
                                                     .tap = tap,
                                                     .num_layers = num_layers,
                                                     .first_layer = first,
                                                     .arithmetic = kArithmetic});
}

const at::Tensor& ModelProbe::NeutralStates(int64_t layer) {
  at::Tensor& states = neutral_states_[layer];
  if (states.defined()) return states;
  const auto place = neutral_states_.find(layer);
  IdentityTap tap;
  if (layer < 0) {
    std::vector<TokenId> tokens;
    for (const std::vector<TokenId>& chunk : options_.neutral_text) {
      tokens.insert(tokens.end(), chunk.begin(), chunk.end());
    }
    return states = Embed(tokens);
  }
  if (place != neutral_states_.begin()) {  // go on from the nearest block below
    const auto below = std::prev(place);
    return states = RunNeutral(below->second, below->first + 1, layer + 1, tap);
  }
  return states = RunNeutral(NeutralStates(-1), 0, layer + 1, tap);
}

std::vector<int64_t> ModelProbe::NeutralTargets() const {
  std::vector<int64_t> targets;
  for (const std::vector<TokenId>& chunk : options_.neutral_text) {
    targets.insert(targets.end(), chunk.begin() + 1, chunk.end());
    targets.push_back(-1);
  }
  return targets;
}

NeutralCost ModelProbe::MeanCost(const at::Tensor& unsteered, const at::Tensor& steered) const {
  const at::Tensor text = at::tensor(NeutralTextRows());
  const at::Tensor rows = text.slice(0, 0, text.size(0), kKlStride);
  const at::Tensor targets = at::tensor(NeutralTargets()).index_select(0, rows);  // [rows]
  double divergence = 0, lost = 0;
  for (int64_t begin = 0; begin < rows.size(0); begin += kKlRows) {
    const at::Tensor slice = rows.narrow(0, begin, std::min(kKlRows, rows.size(0) - begin));
    const at::Tensor p =
        at::log_softmax(loaded_->model->Logits(unsteered.index_select(0, slice), nullptr, kArithmetic), -1);
    const at::Tensor q =
        at::log_softmax(loaded_->model->Logits(steered.index_select(0, slice), nullptr, kArithmetic), -1);
    divergence += (p.exp() * (p - q)).sum(-1).to(at::kDouble).sum().item<double>();
    const at::Tensor target = targets.narrow(0, begin, slice.size(0));
    const at::Tensor gone = (p - q).gather(-1, target.clamp_min(0).unsqueeze(-1)).squeeze(-1).to(at::kDouble);
    lost += (gone * target.ge(0)).sum().item<double>();
  }
  const auto scored = static_cast<double>(targets.ge(0).sum().item<int64_t>());
  return {.kl = divergence / static_cast<double>(rows.size(0)), .cross_entropy_change = scored > 0 ? lost / scored : 0};
}

absl::StatusOr<std::vector<double>> ModelProbe::NeutralKl(const std::vector<SteeringSetting>& settings,
                                                          JobContext& job) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<NeutralCost> costs, NeutralCosts(settings, job));
  std::vector<double> divergences;
  for (const NeutralCost& cost : costs) divergences.push_back(cost.kl);
  return divergences;
}

absl::StatusOr<std::vector<NeutralCost>> ModelProbe::NeutralCosts(const std::vector<SteeringSetting>& settings,
                                                                  JobContext& job) {
  if (!has_neutral_text()) return absl::FailedPreconditionError("the server has no neutral text");
  at::NoGradGuard no_grad;
  std::vector<NeutralCost> costs;
  for (const SteeringSetting& setting : settings) {
    if (setting.vector == nullptr || setting.strength == 0) {
      costs.emplace_back();
      continue;
    }
    const int64_t first = FirstBlock(*setting.vector);
    const at::Tensor& states = NeutralStates(first - 1);
    TRIMTAB_RETURN_IF_ERROR(job.Checkpoint());
    SteeringBank bank(1, num_layers(), hidden_size());
    SteeringRows rows;
    rows.entries.resize(static_cast<size_t>(neutral_tokens()) * kMaxSelections);
    const int32_t slot = *bank.Acquire(setting.vector);
    for (int64_t row : NeutralTextRows()) {
      rows.entries[static_cast<size_t>(row) * kMaxSelections] = {slot, setting.strength};
    }
    SteeringTap tap(bank, rows);
    const at::Tensor steered = RunNeutral(Entering(tap, first, states), first, num_layers(), tap);
    TRIMTAB_RETURN_IF_ERROR(job.Checkpoint());
    costs.push_back(MeanCost(NeutralStates(num_layers() - 1), steered));
    TRIMTAB_RETURN_IF_ERROR(job.Checkpoint());
  }
  return costs;
}

}  // namespace trimtab
