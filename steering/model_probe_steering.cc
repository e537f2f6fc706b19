// ModelProbe's measurements of steering: effect on pairs and cost on neutral text.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <string>
#include <unordered_set>

#include "models/attention/dense_attention.h"
#include "server/base/status_macros.h"
#include "steering/model_probe.h"
#include "steering/runtime/steering_bank.h"
#include "steering/runtime/steering_tap.h"
#include "steering/token_tree.h"

namespace trimtab {
namespace {

constexpr int64_t kMaxTreeRows = 512;
constexpr int64_t kKlRows = 128;  // rows of logits held at a time, twice

int64_t DistinctVectors(const std::vector<SteeringSetting>& settings) {
  std::unordered_set<std::string> digests;
  for (const SteeringSetting& setting : settings) {
    if (setting.vector != nullptr) digests.insert(setting.vector->digest());
  }
  return std::max<int64_t>(1, static_cast<int64_t>(digests.size()));
}

// Slots of the settings in `bank`, -1 for those without a vector. The bank must be large enough for all.
std::vector<int32_t> LoadAll(SteeringBank& bank, const std::vector<SteeringSetting>& settings) {
  std::vector<int32_t> slots;
  for (const SteeringSetting& setting : settings) {
    slots.push_back(setting.vector == nullptr ? -1 : *bank.Acquire(setting.vector));
  }
  return slots;
}

}  // namespace

absl::StatusOr<std::vector<std::vector<double>>> ModelProbe::SteeredMargins(
    const std::vector<const EncodedPair*>& pairs, MarginKind kind, const std::vector<SteeringSetting>& settings,
    JobContext& job) const {
  at::NoGradGuard no_grad;
  SteeringBank bank(DistinctVectors(settings), num_layers(), hidden_size());
  const std::vector<int32_t> slots = LoadAll(bank, settings);
  const bool mean = kind == MarginKind::kPrefMean || kind == MarginKind::kLikelihoodMean;
  std::vector<double> outputs(pairs.size() * settings.size(), 0.0);

  TokenForest forest;
  std::vector<ScoredToken> scored;
  SteeringRows rows;
  const auto run = [&]() -> absl::Status {
    if (scored.empty()) return absl::OkStatus();
    rows.entries.resize(static_cast<size_t>(forest.num_rows()) * kMaxSelections);
    SteeringTap tap(bank, rows);
    AddScores(RunForest(forest, tap), scored, outputs);
    forest = TokenForest();
    scored.clear();
    rows.entries.clear();
    return job.Checkpoint();
  };

  for (size_t p = 0; p < pairs.size(); ++p) {
    const EncodedPair& pair = *pairs[p];
    const auto length = static_cast<int64_t>(pair.prompt.size());
    const at::Tensor prompt = Embed(pair.prompt);
    std::vector<const std::vector<TokenId>*> answers = {&pair.preferred};
    if (IsPreference(kind) && !pair.dispreferred.empty()) answers.push_back(&pair.dispreferred);
    std::vector<at::Tensor> answer_rows;
    for (const auto* answer : answers) answer_rows.push_back(Embed({answer->begin(), answer->end() - 1}));

    TokenForest::Place root;  // unsteered prompt rows that the pair's settings share in this tree
    int64_t root_rows = 0, tree_begin = 0;
    bool has_tree = false;
    for (size_t s = 0; s < settings.size(); ++s) {
      const SteeringSetting& setting = settings[s];
      const int64_t from = PlannedSteering{.apply_to = setting.apply_to}.steer_from(length);
      const int64_t needed = pair.tokens() - from;
      const bool fits = has_tree && from > 0 && from == root_rows &&
                        forest.num_rows() - tree_begin + needed <= kMaxTreeRows &&
                        forest.num_rows() + needed <= options_.batch_tokens;
      if (!fits) {
        if (forest.num_rows() + from + needed > options_.batch_tokens) TRIMTAB_RETURN_IF_ERROR(run());
        tree_begin = forest.num_rows();
        root = forest.Add({}, prompt.narrow(0, 0, from));
        root_rows = from;
        has_tree = true;
      }
      const int64_t steered_begin = forest.num_rows();
      const TokenForest::Place end = forest.Add(root, prompt.narrow(0, from, length - from));
      for (size_t a = 0; a < answers.size(); ++a) {
        const TokenForest::Place answer_end = forest.Add(end, answer_rows[a]);
        const auto size = static_cast<int64_t>(answers[a]->size());
        const double weight = (a == 0 ? 1.0 : -1.0) / (mean ? static_cast<double>(size) : 1.0);
        for (int64_t t = 0; t < size; ++t) {
          const int64_t row = t == 0 ? forest.last_row(end) : forest.last_row({answer_end.segment, t});
          scored.push_back(
              {row, (*answers[a])[static_cast<size_t>(t)], static_cast<int64_t>(p * settings.size() + s), weight});
        }
      }
      rows.entries.resize(static_cast<size_t>(forest.num_rows()) * kMaxSelections);
      for (int64_t row = steered_begin; row < forest.num_rows(); ++row) {
        rows.entries[static_cast<size_t>(row) * kMaxSelections] = {slots[s], slots[s] < 0 ? 0 : setting.strength};
      }
    }
  }
  TRIMTAB_RETURN_IF_ERROR(run());

  std::vector<std::vector<double>> margins(pairs.size());
  for (size_t p = 0; p < pairs.size(); ++p) {
    const auto begin = outputs.begin() + static_cast<ptrdiff_t>(p * settings.size());
    margins[p].assign(begin, begin + static_cast<ptrdiff_t>(settings.size()));
  }
  return margins;
}

int64_t ModelProbe::neutral_tokens() const {
  int64_t tokens = 0;
  for (const std::vector<TokenId>& chunk : options_.neutral_text) tokens += static_cast<int64_t>(chunk.size());
  return tokens;
}

at::Tensor ModelProbe::RunNeutral(LayerTap& tap) const {
  std::vector<TokenId> tokens;
  std::vector<SequenceSpan> spans;
  for (const std::vector<TokenId>& chunk : options_.neutral_text) {
    tokens.insert(tokens.end(), chunk.begin(), chunk.end());
    spans.push_back({.length = static_cast<int64_t>(chunk.size())});
  }
  const TokenLayout layout = TokenLayout::Dense(std::move(spans));
  DenseAttention attention;
  return loaded_->model->Forward(Embed(tokens), {.layout = layout, .attention = attention, .tap = tap});
}

double ModelProbe::MeanKl(const at::Tensor& unsteered, const at::Tensor& steered) const {
  double sum = 0;
  for (int64_t begin = 0; begin < unsteered.size(0); begin += kKlRows) {
    const int64_t count = std::min(kKlRows, unsteered.size(0) - begin);
    const at::Tensor p = at::log_softmax(loaded_->model->Logits(unsteered.narrow(0, begin, count)), -1);
    const at::Tensor q = at::log_softmax(loaded_->model->Logits(steered.narrow(0, begin, count)), -1);
    sum += (p.exp() * (p - q)).sum(-1).to(at::kDouble).sum().item<double>();
  }
  return sum / static_cast<double>(unsteered.size(0));
}

absl::StatusOr<std::vector<double>> ModelProbe::NeutralKl(const std::vector<SteeringSetting>& settings,
                                                          JobContext& job) {
  if (!has_neutral_text()) return absl::FailedPreconditionError("the server has no neutral text");
  at::NoGradGuard no_grad;
  if (!neutral_hidden_.defined()) {
    IdentityTap tap;
    neutral_hidden_ = RunNeutral(tap);
    TRIMTAB_RETURN_IF_ERROR(job.Checkpoint());
  }
  std::vector<double> divergences;
  for (const SteeringSetting& setting : settings) {
    if (setting.vector == nullptr || setting.strength == 0) {
      divergences.push_back(0);
      continue;
    }
    SteeringBank bank(1, num_layers(), hidden_size());
    SteeringRows rows;
    rows.entries.resize(static_cast<size_t>(neutral_tokens()) * kMaxSelections);
    const int32_t slot = *bank.Acquire(setting.vector);
    for (size_t row = 0; row < rows.entries.size(); row += kMaxSelections) {
      rows.entries[row] = {slot, setting.strength};
    }
    SteeringTap tap(bank, rows);
    divergences.push_back(MeanKl(neutral_hidden_, RunNeutral(tap)));
    TRIMTAB_RETURN_IF_ERROR(job.Checkpoint());
  }
  return divergences;
}

}  // namespace trimtab
