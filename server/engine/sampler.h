// From a row of logits to a token. Owned by RowSampler (row_sampler.h), one per task; one thread at a time.
#ifndef TRIMTAB_SERVER_ENGINE_SAMPLER_H_
#define TRIMTAB_SERVER_ENGINE_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/engine/logit_scan.h"
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
//
// Cost: nothing is sorted. Greedy reads the logits once, log-probabilities and sampling once more; a filter then looks
// at the tokens within its reach only. Nothing is allocated per token once the workspace has grown.
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
                                    absl::Span<const TokenId> watch = {});

 private:
  // The tokens above `threshold` and, in the order of ids, the first `ties` that equal it.
  struct Cut {
    float threshold = 0;
    int64_t ties = 0;
  };
  struct Weighted {
    float logit, weight;
  };

  TokenId Draw(absl::Span<const float> logits, const SamplingParams& params, int64_t position);
  // One draw from all tokens; `total` and block_sums_ are SumExp's.
  TokenId DrawFromAll(absl::Span<const float> logits, float scale, double total, double uniform) const;
  // Candidates: the k likeliest tokens; those of at least `min_p` of the best one's weight; the likeliest ones that
  // hold at least `top_p` of `total`, and some more. weights_ are set.
  void CollectTopK(absl::Span<const float> logits, int64_t k);
  void CollectMinP(absl::Span<const float> logits, float scale, float min_p);
  void CollectTopP(absl::Span<const float> logits, float scale, float top_p, double total);
  void DropBelow(float min_weight);
  // Keeps the fewest likeliest candidates whose weights reach `mass`.
  void KeepNucleus(double mass);
  Cut FindNucleus(double mass);
  void Keep(Cut cut);
  void Penalize(absl::Span<const float> logits, float penalty, absl::Span<const TokenId> seen);

  // The `count` likeliest tokens with log-probabilities, best first. `scan_` is of `logits`.
  std::vector<TokenAlternative> TopTokens(absl::Span<const float> logits, int64_t count, double log_normalizer);

  const int64_t vocab_size_;
  LogitScan scan_;                // of the logits, then of the penalised ones
  std::vector<float> penalized_;  // [vocab_size] while a penalty applies
  std::vector<uint32_t> marks_;   // [vocab_size] == mark_: seen, penalised once; empty until a penalty applies
  uint32_t mark_ = 0;
  std::vector<double> block_sums_;
  // Candidates in the order of ids, parallel.
  std::vector<TokenId> ids_;
  std::vector<float> values_, weights_;
  std::vector<float> selection_;  // scratch
  std::vector<Weighted> active_;  // scratch
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_SAMPLER_H_
