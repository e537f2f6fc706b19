// From a row of logits to a token. No torch. Owned by ModelRunner, engine thread.
#ifndef TRIMTAB_SERVER_ENGINE_SAMPLER_H_
#define TRIMTAB_SERVER_ENGINE_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/engine/request.h"

namespace trimtab {

// Order of the steps: repetition penalty (Keskar et al. 2019: a seen token's logit is divided by the penalty if
// positive, else multiplied), temperature, top-k and min-p (each keeps the likeliest tokens, so their order does not
// matter), top-p over what is left and renormalised, one draw. Ties are broken towards the lower id everywhere.
//
// The draw walks the kept tokens in the order of their ids with UniformAt(seed, position): it depends on the request's
// seed and on the position in its output, on nothing else, and rounding differences between batches move the borders
// between tokens only by as much as they move probabilities.
//
// Log-probabilities are those of the model: of the unmodified logits at temperature 1, before the penalty and all
// filters, whatever the token was sampled from.
class Sampler {
 public:
  explicit Sampler(int64_t vocab_size);

  // `logits`: [vocab_size]. `seen`: the tokens so far, prompt included. `position`: of the token in the output, from 0.
  // INTERNAL (NON_FINITE) when a logit is NaN or infinite.
  absl::StatusOr<OutputToken> Sample(absl::Span<const float> logits, const SamplingParams& params,
                                     absl::Span<const TokenId> seen, int64_t position);
  // The log-probability of a given token, of the `top` likeliest ones and of those in `watch`. INTERNAL (NON_FINITE)
  // as above.
  absl::StatusOr<ScoredToken> Score(absl::Span<const float> logits, TokenId token, int top,
                                    absl::Span<const TokenId> watch = {}) const;

 private:
  TokenId Draw(absl::Span<const float> logits, const SamplingParams& params, int64_t position);
  // Keeps the smallest set of the likeliest candidates whose share of the weights reaches `top_p`.
  template <typename Order>
  void KeepNucleus(const Order& likelier, float top_p);
  void Penalize(absl::Span<const float> logits, float penalty, absl::Span<const TokenId> seen);

  const int64_t vocab_size_;
  std::vector<float> penalized_;  // [vocab_size] while a penalty applies
  std::vector<uint32_t> marks_;   // [vocab_size] == mark_: seen, penalised once
  uint32_t mark_ = 0;
  std::vector<TokenId> candidates_;
  std::vector<float> weights_;  // [vocab_size], of the candidates
};

// The `count` likeliest tokens with log-probabilities, best first, ties to the lower id. `log_normalizer` is
// LogSumExp(logits).
std::vector<TokenAlternative> TopTokens(absl::Span<const float> logits, int count, double log_normalizer);
double LogSumExp(absl::Span<const float> logits);
// The lowest id among the largest.
TokenId ArgMax(absl::Span<const float> logits);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_SAMPLER_H_
