#include "server/engine/request_check.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"

namespace trimtab {
namespace {

constexpr int kMaxLogprobs = 20;
constexpr int kMaxScoreTop = 64;

class Violations {
 public:
  void Check(bool good, std::string field, std::string description) {
    if (!good) list_.push_back({std::move(field), std::move(description)});
  }
  absl::Status ToStatus() const { return list_.empty() ? absl::OkStatus() : FieldError(list_); }

 private:
  std::vector<FieldViolation> list_;
};

void CheckTokens(const Request& request, const ModelSpec& spec, Violations& violations) {
  const auto in_vocabulary = [&](TokenId id) { return id >= 0 && id < spec.vocab_size; };
  const int64_t size = static_cast<int64_t>(request.tokens.size());
  violations.Check(size > 0, "tokens", "must not be empty");
  violations.Check(std::all_of(request.tokens.begin(), request.tokens.end(), in_vocabulary), "tokens",
                   absl::StrCat("must be ids below ", spec.vocab_size));
  if (!request.score) {
    violations.Check(request.prompt_length == size, "prompt_length", "must be the number of tokens");
    return;
  }
  violations.Check(request.prompt_length >= 1 && request.prompt_length < size, "prompt_length",
                   "must leave at least one token before and after it");
  violations.Check(request.score_top >= 0 && request.score_top <= kMaxScoreTop, "score_top",
                   absl::StrCat("must be 0 to ", kMaxScoreTop));
  const int64_t watched = static_cast<int64_t>(request.score_watch.size());
  violations.Check(watched == 0 || watched == size - request.prompt_length, "score_watch",
                   "must have one list per token of the continuation");
  for (const std::vector<TokenId>& ids : request.score_watch) {
    violations.Check(std::all_of(ids.begin(), ids.end(), in_vocabulary), "score_watch",
                     absl::StrCat("must hold ids below ", spec.vocab_size));
  }
}

// Written so that NaN is out of range.
void CheckSampling(const SamplingParams& sampling, Violations& violations) {
  violations.Check(sampling.max_output_tokens >= 1, "max_output_tokens", "must be at least 1");
  violations.Check(sampling.temperature >= 0 && std::isfinite(sampling.temperature), "temperature",
                   "must be 0 or more");
  violations.Check(sampling.top_p > 0 && sampling.top_p <= 1, "top_p", "must be above 0 and at most 1");
  violations.Check(sampling.top_k >= 0, "top_k", "must be 0 or more");
  violations.Check(sampling.min_p >= 0 && sampling.min_p < 1, "min_p", "must be 0 or more and below 1");
  violations.Check(sampling.repetition_penalty > 0 && std::isfinite(sampling.repetition_penalty), "repetition_penalty",
                   "must be above 0");
  violations.Check(sampling.logprobs <= kMaxLogprobs, "logprobs", absl::StrCat("must be at most ", kMaxLogprobs));
}

void CheckPlan(const SteeringPlan& plan, const ModelSpec& spec, Violations& violations) {
  violations.Check(plan.entries().size() <= static_cast<size_t>(kMaxSelections), "steering",
                   absl::StrCat("must have at most ", kMaxSelections, " entries"));
  for (size_t i = 0; i < plan.entries().size(); ++i) {
    const PlannedSteering& entry = plan.entries()[i];
    const std::string field = absl::StrCat("steering[", i, "]");
    const SteeringVectorSpec& vector = entry.vector->spec();
    violations.Check(std::isfinite(entry.strength), absl::StrCat(field, ".strength"), "must be a number");
    violations.Check(vector.hidden_size == spec.hidden_size && vector.layers.back().layer < spec.num_layers(), field,
                     "was made for a model of another shape");
  }
}

}  // namespace

absl::Status CheckRequest(const Request& request, const ModelSpec& spec, const RequestLimits& limits) {
  Violations violations;
  violations.Check(request.sink != nullptr, "sink", "must be set");
  CheckTokens(request, spec, violations);
  if (!request.score) CheckSampling(request.sampling, violations);
  CheckPlan(request.plan, spec, violations);
  if (absl::Status status = violations.ToStatus(); !status.ok()) return status;

  // Room for one token of output; the last token of a score request is never computed.
  const int64_t tokens = static_cast<int64_t>(request.tokens.size());
  const int64_t needed = request.score ? tokens : tokens + 1;
  const auto metadata = [&](int64_t limit) {
    return std::map<std::string, std::string>{{"tokens", absl::StrCat(tokens)}, {"limit", absl::StrCat(limit)}};
  };
  const int64_t spare = request.score ? 0 : 1;
  if (needed > limits.max_context) {
    return ReasonError(
        absl::StatusCode::kInvalidArgument, kPromptTooLong,
        absl::StrCat("the prompt has ", tokens, " tokens, at most ", limits.max_context - spare, " fit the context"),
        metadata(limits.max_context - spare));
  }
  if (needed > limits.cache_tokens) {
    return ReasonError(absl::StatusCode::kResourceExhausted, kKvCacheTooSmall,
                       absl::StrCat("the prompt has ", tokens, " tokens, the cache holds ", limits.cache_tokens - spare,
                                    ": start the server with a larger KV cache"),
                       metadata(limits.cache_tokens - spare));
  }
  return absl::OkStatus();
}

}  // namespace trimtab
