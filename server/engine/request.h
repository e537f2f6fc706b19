// What was asked of the engine (const once submitted) and what it answers with. No torch. Built by RPC code on the prep
// pool, consumed by the engine thread.
#ifndef TRIMTAB_SERVER_ENGINE_REQUEST_H_
#define TRIMTAB_SERVER_ENGINE_REQUEST_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "models/tokenizer/tokenizer.h"
#include "steering/drift/scorer.h"
#include "steering/steering_plan.h"

namespace trimtab {

enum class Priority { kInteractive = 1, kBatch = 2, kBackground = 3 };  // values equal the API's Priority

struct SamplingParams {
  int64_t max_output_tokens = 256;
  float temperature = 0;         // 0: greedy
  float top_p = 1;               // (0, 1]
  int32_t top_k = 0;             // 0: off
  float min_p = 0;               // [0, 1)
  float repetition_penalty = 1;  // > 0; applied to tokens of the prompt and the output
  uint64_t seed = 0;      // the same seed, request and weights give the same tokens whatever else is in the batch
  int32_t logprobs = -1;  // -1: none; n: the token's own and the n most likely ones, n <= 20
  std::vector<TokenId> end_tokens;  // any of them ends the output: not delivered, not counted; empty with ignore_eos
};

enum class FinishReason { kStop = 1, kStopSequence = 2, kLength = 3, kCancelled = 4, kDeadline = 5, kError = 6 };

// One generated token.
struct OutputToken {
  TokenId token = 0;
  float logprob = 0;
  std::vector<TokenAlternative> top;  // as SamplingParams::logprobs asks
};

struct RequestTiming {
  absl::Duration queue, prefill, decode;  // until first scheduled, until the first token, after it
};

struct RequestUsage {
  int64_t prompt_tokens = 0, cached_prompt_tokens = 0, output_tokens = 0;
};

// Per entry of the plan: how many token positions were steered, and the mean over them and over the steered layers of
// |u| / |h|, where u is the whole edit of the position, all its entries together. Positions whose cache blocks were
// shared count as steered; the mean is over those that this request computed.
struct AppliedDose {
  int64_t steered_tokens = 0;
  float mean_relative_dose = 0;
};

// Sent once, after all tokens.
struct RequestEnd {
  FinishReason reason = FinishReason::kStop;
  absl::Status status;  // OK for kStop, kStopSequence, kLength; else why
  RequestUsage usage;
  RequestTiming timing;
  std::vector<AppliedDose> doses;   // parallel to the plan's entries
  std::vector<ScoredToken> scored;  // score requests only
};

// Where results go. Called by the engine thread: must return at once, never block, never call back into the engine's
// blocking methods. OnEnd is called exactly once, last.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  virtual void OnToken(OutputToken token) = 0;
  virtual void OnEnd(RequestEnd end) = 0;
  // False while the consumer is behind: the engine pauses the sequence (keeps its cache blocks) until true or the stall
  // time-out. Engine thread.
  virtual bool Ready() const { return true; }
};

struct Request {
  std::string id;
  std::vector<TokenId> tokens;  // prompt; for score requests prompt + continuation
  int64_t prompt_length = 0;    // == tokens.size() unless score
  bool score = false;           // score tokens[prompt_length:] and end; nothing is sampled
  int score_top = 0;
  std::vector<std::vector<TokenId>> score_watch;  // as ScoreItem::watch
  SamplingParams sampling;
  SteeringPlan plan;
  Priority priority = Priority::kInteractive;
  std::string tenant;     // who asks: fairness and bounds are per tenant; empty: everybody who gives no name
  bool internal = false;  // the server's own work: bounds of tenants and of the queue do not apply
  absl::Time arrival, deadline = absl::InfiniteFuture();
  std::shared_ptr<RequestSink> sink;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_REQUEST_H_
