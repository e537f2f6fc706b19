#include "server/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/engine/random.h"

namespace trimtab {
namespace {

absl::Status CheckFinite(absl::Span<const float> logits) {
  bool finite = true;
  for (float logit : logits) finite &= std::abs(logit) <= std::numeric_limits<float>::max();
  if (finite) return absl::OkStatus();
  return ReasonError(absl::StatusCode::kInternal, kNonFinite,
                     "the model's output for this request is not a number: lower the steering strength");
}

// Likelier first, ties to the lower id.
struct Likelier {
  absl::Span<const float> logits;
  bool operator()(TokenId a, TokenId b) const { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; }
};

}  // namespace

double LogSumExp(absl::Span<const float> logits) {
  const float max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(logit - max);
  return max + std::log(sum);
}

TokenId ArgMax(absl::Span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::vector<TokenAlternative> TopTokens(absl::Span<const float> logits, int count, double log_normalizer) {
  // A heap of the best so far with the worst of them on top: most tokens cost one comparison.
  const Likelier likelier{logits};
  std::vector<TokenId> best;
  best.reserve(count + 1);
  for (TokenId id = 0; id < static_cast<TokenId>(logits.size()) && count > 0; ++id) {
    if (static_cast<int>(best.size()) == count) {
      if (!likelier(id, best.front())) continue;
      std::pop_heap(best.begin(), best.end(), likelier);
      best.pop_back();
    }
    best.push_back(id);
    std::push_heap(best.begin(), best.end(), likelier);
  }
  std::sort_heap(best.begin(), best.end(), likelier);
  std::vector<TokenAlternative> top;
  top.reserve(best.size());
  for (TokenId id : best) top.push_back({id, static_cast<float>(logits[id] - log_normalizer)});
  return top;
}

Sampler::Sampler(int64_t vocab_size) : vocab_size_(vocab_size), marks_(vocab_size, 0) {}

absl::StatusOr<OutputToken> Sampler::Sample(absl::Span<const float> logits, const SamplingParams& params,
                                            absl::Span<const TokenId> seen, int64_t position) {
  TRIMTAB_RETURN_IF_ERROR(CheckFinite(logits));
  absl::Span<const float> modified = logits;
  if (params.repetition_penalty != 1) {
    Penalize(logits, params.repetition_penalty, seen);
    modified = penalized_;
  }
  OutputToken output;
  output.token = params.temperature > 0 ? Draw(modified, params, position) : ArgMax(modified);
  if (params.logprobs >= 0) {
    const double log_normalizer = LogSumExp(logits);
    output.logprob = static_cast<float>(logits[output.token] - log_normalizer);
    output.top = TopTokens(logits, params.logprobs, log_normalizer);
  }
  return output;
}

absl::StatusOr<ScoredToken> Sampler::Score(absl::Span<const float> logits, TokenId token, int top,
                                           absl::Span<const TokenId> watch) const {
  TRIMTAB_RETURN_IF_ERROR(CheckFinite(logits));
  const double log_normalizer = LogSumExp(logits);
  ScoredToken scored;
  scored.token = token;
  scored.logprob = static_cast<float>(logits[token] - log_normalizer);
  scored.is_greedy = ArgMax(logits) == token;
  scored.top = TopTokens(logits, top, log_normalizer);
  for (TokenId id : watch) scored.watched.push_back(static_cast<float>(logits[id] - log_normalizer));
  return scored;
}

void Sampler::Penalize(absl::Span<const float> logits, float penalty, absl::Span<const TokenId> seen) {
  penalized_.assign(logits.begin(), logits.end());
  if (++mark_ == 0) {
    std::fill(marks_.begin(), marks_.end(), 0);
    mark_ = 1;
  }
  for (TokenId id : seen) {
    if (std::exchange(marks_[id], mark_) == mark_) continue;
    penalized_[id] = penalized_[id] > 0 ? penalized_[id] / penalty : penalized_[id] * penalty;
  }
}

template <typename Order>
void Sampler::KeepNucleus(const Order& likelier, float top_p) {
  double total = 0;
  for (TokenId id : candidates_) total += weights_[id];
  // Sorts only as far as needed, in growing pieces.
  double kept = 0;
  size_t count = 0, sorted = 0;
  while (count < candidates_.size() && kept < top_p * total) {
    if (count == sorted) {
      const size_t next = std::min(candidates_.size(), std::max<size_t>(64, 8 * sorted));
      if (next < candidates_.size()) {
        std::nth_element(candidates_.begin() + sorted, candidates_.begin() + next, candidates_.end(), likelier);
      }
      std::sort(candidates_.begin() + sorted, candidates_.begin() + next, likelier);
      sorted = next;
    }
    kept += weights_[candidates_[count++]];
  }
  candidates_.resize(count);
}

TokenId Sampler::Draw(absl::Span<const float> logits, const SamplingParams& params, int64_t position) {
  const Likelier likelier{logits};
  candidates_.resize(vocab_size_);
  std::iota(candidates_.begin(), candidates_.end(), 0);
  if (params.top_k > 0 && params.top_k < vocab_size_) {
    std::nth_element(candidates_.begin(), candidates_.begin() + (params.top_k - 1), candidates_.end(), likelier);
    candidates_.resize(params.top_k);
  }
  // Probabilities up to a common factor: the best token's weight is 1.
  const TokenId best = ArgMax(logits);
  weights_.resize(vocab_size_);
  for (TokenId id : candidates_) weights_[id] = std::exp((logits[id] - logits[best]) / params.temperature);
  if (params.min_p > 0) {
    candidates_.erase(
        std::remove_if(candidates_.begin(), candidates_.end(), [&](TokenId id) { return weights_[id] < params.min_p; }),
        candidates_.end());
  }
  if (params.top_p < 1) KeepNucleus(likelier, params.top_p);
  if (static_cast<int64_t>(candidates_.size()) < vocab_size_) std::sort(candidates_.begin(), candidates_.end());
  double total = 0;
  for (TokenId id : candidates_) total += weights_[id];
  double point = UniformAt(params.seed, static_cast<uint64_t>(position)) * total;
  for (TokenId id : candidates_) {
    point -= weights_[id];
    if (point < 0) return id;
  }
  return best;  // rounding left nothing over
}

}  // namespace trimtab
