#include "server/engine/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "server/base/error.h"
#include "server/engine/random.h"

namespace trimtab {
namespace {

absl::Status NonFiniteLogits() {
  return ReasonError(absl::StatusCode::kInternal, kNonFinite,
                     "the model's output for this request is not a number: lower the steering strength");
}

double LogSumExp(absl::Span<const float> logits, float max) { return max + std::log(SumExp(logits, max, 1)); }

// 1 / temperature, kept finite so that the best token's exponent is 0 and not NaN.
float ScaleOf(float temperature) { return std::min(1 / temperature, std::numeric_limits<float>::max()); }

// A logit such that every token of at least `weight` has that logit or a greater one.
float LogitOfWeight(float max, float scale, double weight) {
  const double logit = max + (std::log(weight) - 0.01) / scale;
  const float cut = static_cast<float>(std::max<double>(logit, std::numeric_limits<float>::lowest()));
  return std::nextafter(cut, std::numeric_limits<float>::lowest());
}

}  // namespace

Sampler::Sampler(int64_t vocab_size) : vocab_size_(vocab_size) {}

absl::StatusOr<OutputToken> Sampler::Sample(absl::Span<const float> logits, const SamplingParams& params,
                                            absl::Span<const TokenId> seen, int64_t position) {
  ScanLogits(logits, scan_);
  if (!scan_.finite) return NonFiniteLogits();
  double log_normalizer = 0;
  OutputToken output;
  if (params.logprobs >= 0) {
    log_normalizer = LogSumExp(logits, scan_.max);
    if (params.logprobs > 0) output.top = TopTokens(logits, params.logprobs, log_normalizer);
  }
  absl::Span<const float> modified = logits;
  if (params.repetition_penalty != 1) {
    Penalize(logits, params.repetition_penalty, seen);
    modified = penalized_;
    ScanLogits(modified, scan_);
  }
  output.token = params.temperature > 0 ? Draw(modified, params, position) : scan_.argmax;
  if (params.logprobs >= 0) output.logprob = static_cast<float>(logits[output.token] - log_normalizer);
  return output;
}

absl::StatusOr<ScoredToken> Sampler::Score(absl::Span<const float> logits, TokenId token, int top,
                                           absl::Span<const TokenId> watch) {
  ScanLogits(logits, scan_);
  if (!scan_.finite) return NonFiniteLogits();
  const double log_normalizer = LogSumExp(logits, scan_.max);
  ScoredToken scored;
  scored.token = token;
  scored.logprob = static_cast<float>(logits[token] - log_normalizer);
  scored.is_greedy = scan_.argmax == token;
  if (top > 0) scored.top = TopTokens(logits, top, log_normalizer);
  for (TokenId id : watch) scored.watched.push_back(static_cast<float>(logits[id] - log_normalizer));
  return scored;
}

void Sampler::Penalize(absl::Span<const float> logits, float penalty, absl::Span<const TokenId> seen) {
  penalized_.assign(logits.begin(), logits.end());
  marks_.resize(vocab_size_, 0);
  if (++mark_ == 0) {
    std::fill(marks_.begin(), marks_.end(), 0);
    mark_ = 1;
  }
  for (TokenId id : seen) {
    if (std::exchange(marks_[id], mark_) == mark_) continue;
    const float penalized = penalized_[id] > 0 ? penalized_[id] / penalty : penalized_[id] * penalty;
    // An extreme penalty rules a token out, or in; the others stay comparable.
    constexpr float kMost = std::numeric_limits<float>::max();
    penalized_[id] = std::clamp(penalized, -kMost, kMost);
  }
}

std::vector<TokenAlternative> Sampler::TopTokens(absl::Span<const float> logits, int64_t count, double log_normalizer) {
  CollectTopK(logits, std::min(count, vocab_size_));
  std::vector<TokenAlternative> top;
  top.reserve(ids_.size());
  for (size_t i = 0; i < ids_.size(); ++i) top.push_back({ids_[i], static_cast<float>(values_[i] - log_normalizer)});
  // By logit: log-probabilities may round different logits to the same value.
  std::sort(top.begin(), top.end(), [&](const TokenAlternative& a, const TokenAlternative& b) {
    const float x = logits[a.token], y = logits[b.token];
    return x != y ? x > y : a.token < b.token;
  });
  return top;
}

TokenId Sampler::Draw(absl::Span<const float> logits, const SamplingParams& params, int64_t position) {
  const float scale = ScaleOf(params.temperature);
  const double uniform = UniformAt(params.seed, static_cast<uint64_t>(position));
  const bool top_k = params.top_k > 0 && params.top_k < vocab_size_;
  if (top_k || params.min_p > 0) {
    if (top_k) {
      CollectTopK(logits, params.top_k);
      weights_.resize(values_.size());
      Weights(values_, scan_.max, scale, weights_.data());
    } else {
      CollectMinP(logits, scale, params.min_p);
    }
    if (params.min_p > 0) DropBelow(params.min_p);
    if (params.top_p < 1) {
      double total = 0;
      for (float weight : weights_) total += weight;
      KeepNucleus(params.top_p * total);
    }
  } else {
    const double total = SumExp(logits, scan_.max, scale, &block_sums_);
    if (params.top_p >= 1) return DrawFromAll(logits, scale, total, uniform);
    CollectTopP(logits, scale, params.top_p, total);
    KeepNucleus(params.top_p * total);
  }
  double kept = 0;
  for (float weight : weights_) kept += weight;
  double point = uniform * kept;
  for (size_t i = 0; i < ids_.size(); ++i) {
    point -= weights_[i];
    if (point < 0) return ids_[i];
  }
  return scan_.argmax;  // rounding left nothing over
}

TokenId Sampler::DrawFromAll(absl::Span<const float> logits, float scale, double total, double uniform) const {
  double point = uniform * total;
  for (size_t block = 0; block < block_sums_.size(); ++block) {
    if (point >= block_sums_[block]) {
      point -= block_sums_[block];
      continue;
    }
    const int64_t begin = static_cast<int64_t>(block) * kLogitBlock;
    const absl::Span<const float> values = logits.subspan(begin, kLogitBlock);
    std::array<float, kLogitBlock> weights;
    Weights(values, scan_.max, scale, weights.data());
    int64_t last = -1;  // of the block's tokens that have a weight
    for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
      if (weights[i] == 0) continue;
      last = i;
      point -= weights[i];
      if (point < 0) break;
    }
    if (last >= 0) return static_cast<TokenId>(begin + last);
  }
  return scan_.argmax;  // rounding left nothing over
}

void Sampler::CollectTopK(absl::Span<const float> logits, int64_t k) {
  ids_.clear();
  values_.clear();
  // The k-th largest of the blocks' best is not above the k-th largest of all.
  float cut = std::numeric_limits<float>::lowest();
  if (k <= static_cast<int64_t>(scan_.block_max.size())) {
    selection_.assign(scan_.block_max.begin(), scan_.block_max.end());
    std::nth_element(selection_.begin(), selection_.begin() + (k - 1), selection_.end(), std::greater<>());
    cut = selection_[k - 1];
  }
  GatherLogits(logits, scan_.block_max, cut, ids_, values_);
  weights_.clear();
  if (static_cast<int64_t>(values_.size()) <= k) return;
  selection_.assign(values_.begin(), values_.end());
  std::nth_element(selection_.begin(), selection_.begin() + (k - 1), selection_.end(), std::greater<>());
  const float threshold = selection_[k - 1];
  const int64_t above =
      std::count_if(selection_.begin(), selection_.begin() + (k - 1), [&](float value) { return value > threshold; });
  Keep({.threshold = threshold, .ties = k - above});
}

void Sampler::CollectMinP(absl::Span<const float> logits, float scale, float min_p) {
  ids_.clear();
  values_.clear();
  GatherLogits(logits, scan_.block_max, LogitOfWeight(scan_.max, scale, min_p), ids_, values_);
  weights_.resize(values_.size());
  Weights(values_, scan_.max, scale, weights_.data());
}

void Sampler::CollectTopP(absl::Span<const float> logits, float scale, float top_p, double total) {
  // The tokens that weigh less than (1 - top_p) * total / n cannot reach (1 - top_p) * total if there are at most n of
  // them. Few tokens carry most of the weight, so a small n usually does; whether it did is seen from what was found.
  const double rest = (1.0 - top_p) * total;
  for (double n = 64;; n *= 16) {
    const bool last = n >= static_cast<double>(vocab_size_);
    const double weight = rest / std::min(n, static_cast<double>(vocab_size_));
    ids_.clear();
    values_.clear();
    GatherLogits(logits, scan_.block_max, LogitOfWeight(scan_.max, scale, std::min(weight, 1.0)), ids_, values_);
    weights_.resize(values_.size());
    Weights(values_, scan_.max, scale, weights_.data());
    if (last) return;
    double found = 0;
    for (float w : weights_) found += w;
    if (found >= top_p * total) return;
  }
}

void Sampler::DropBelow(float min_weight) {
  size_t count = 0;
  for (size_t i = 0; i < ids_.size(); ++i) {
    ids_[count] = ids_[i];
    values_[count] = values_[i];
    weights_[count] = weights_[i];
    count += weights_[i] >= min_weight ? 1 : 0;
  }
  ids_.resize(count);
  values_.resize(count);
  weights_.resize(count);
}

void Sampler::KeepNucleus(double mass) { Keep(FindNucleus(mass)); }

Sampler::Cut Sampler::FindNucleus(double mass) {
  constexpr int kBuckets = 128;
  constexpr size_t kFew = 48;
  active_.clear();
  double kept = 0;  // of the tokens above all active ones
  // Spreads the tokens over buckets by logit and goes on with those of the bucket in which the mass is reached.
  for (size_t count = values_.size(); count > kFew; count = active_.size()) {
    const bool first = active_.empty();
    const auto logit_of = [&](size_t i) { return first ? values_[i] : active_[i].logit; };
    const auto weight_of = [&](size_t i) { return first ? weights_[i] : active_[i].weight; };
    float low = logit_of(0), high = low;
    for (size_t i = 1; i < count; ++i) {
      low = std::min(low, logit_of(i));
      high = std::max(high, logit_of(i));
    }
    const float scale = kBuckets / (high - low);
    if (!(scale > 0 && scale <= std::numeric_limits<float>::max())) break;
    const auto bucket_of = [&](size_t i) {
      return std::min(kBuckets - 1, static_cast<int>((high - logit_of(i)) * scale));
    };
    std::array<double, kBuckets> masses = {};
    for (size_t i = 0; i < count; ++i) masses[bucket_of(i)] += weight_of(i);
    int bucket = 0;
    while (bucket < kBuckets - 1 && kept + masses[bucket] < mass) kept += masses[bucket++];
    size_t next = 0;
    if (first) active_.resize(count);
    for (size_t i = 0; i < count; ++i) {
      const Weighted token = {logit_of(i), weight_of(i)};
      const bool inside = bucket_of(i) == bucket;
      active_[next] = token;
      next += inside ? 1 : 0;
    }
    active_.resize(next);
    if (next == count) break;
  }
  if (active_.empty()) {
    for (size_t i = 0; i < values_.size(); ++i) active_.push_back({values_[i], weights_[i]});
  }
  std::sort(active_.begin(), active_.end(), [](const Weighted& a, const Weighted& b) { return a.logit > b.logit; });
  size_t count = 0;
  while (count < active_.size() && kept < mass) kept += active_[count++].weight;
  if (count == 0) return {.threshold = active_[0].logit, .ties = 0};
  Cut cut = {.threshold = active_[count - 1].logit};
  while (count > 0 && active_[count - 1].logit == cut.threshold) {
    --count;
    ++cut.ties;
  }
  return cut;
}

void Sampler::Keep(Cut cut) {
  size_t count = 0;
  const bool weighted = !weights_.empty();
  for (size_t i = 0; i < ids_.size(); ++i) {
    const float value = values_[i];
    ids_[count] = ids_[i];
    values_[count] = value;
    if (weighted) weights_[count] = weights_[i];
    const bool tie = value == cut.threshold && cut.ties > 0;
    cut.ties -= tie ? 1 : 0;
    count += value > cut.threshold || tie ? 1 : 0;
  }
  ids_.resize(count);
  values_.resize(count);
  if (weighted) weights_.resize(count);
}

}  // namespace trimtab
