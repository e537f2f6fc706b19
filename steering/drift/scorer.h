// How drift measures what is served: log-likelihoods of continuations, steered as in Generate. Implemented by the
// engine as background-priority requests, so what is measured is what is served. No torch. Any thread but the engine's.
#ifndef TRIMTAB_STEERING_DRIFT_SCORER_H_
#define TRIMTAB_STEERING_DRIFT_SCORER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "models/tokenizer/tokenizer.h"
#include "steering/steering_plan.h"

namespace trimtab {

// One sequence to score: `tokens` = prompt + continuation.
struct ScoreItem {
  std::vector<TokenId> tokens;
  int64_t prompt_length = 0;  // tokens before the continuation, at least 1; steering positions count from it
  SteeringPlan plan;
  int top = 0;  // also return the `top` most likely tokens of each scored position, at most 64
  // Tokens whose log-probability to return at each scored position, whatever the continuation is: empty, or one list
  // per continuation token. Ids must be in the vocabulary.
  std::vector<std::vector<TokenId>> watch;
};

struct TokenAlternative {
  TokenId token = 0;
  float logprob = 0;
};

// For each continuation token, in order.
struct ScoredToken {
  TokenId token = 0;
  float logprob = 0;  // natural log, full softmax at temperature 1
  bool is_greedy = false;
  std::vector<TokenAlternative> top;  // most likely first
  std::vector<float> watched;         // parallel to ScoreItem::watch of this position
};

struct ScoreOutcome {
  std::vector<ScoredToken> tokens;
  int64_t cached_prompt_tokens = 0;
};

class Scorer {
 public:
  virtual ~Scorer() = default;
  // Blocks until all items are scored; results in order. The first failure fails the call. CANCELLED/UNAVAILABLE when
  // the engine stops.
  virtual absl::StatusOr<std::vector<ScoreOutcome>> Score(std::vector<ScoreItem> items) = 0;
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_DRIFT_SCORER_H_
