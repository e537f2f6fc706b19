// The requests of GenerationService and DriftService: those that carry steering.
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/rpc/validate.h"

namespace trimtab {
namespace {

constexpr int64_t kMaxOutputTokens = int64_t{1} << 20;
constexpr int64_t kMaxStopSequences = 16;
constexpr size_t kMaxStopBytes = 256;
constexpr int64_t kMaxLogprobs = 20;
constexpr int64_t kMaxContinuations = 128;
constexpr size_t kMaxContinuationBytes = size_t{64} << 10;
constexpr size_t kMaxSuiteBytes = 64;
constexpr int64_t kDefaultTextTokens = 2048;

SamplingParams ParseSampling(FieldChecker& checker, const v1::GenerationConfig& config) {
  SamplingParams sampling;
  if (config.has_max_output_tokens()) {
    checker.Integer("config.max_output_tokens", config.max_output_tokens(), 1, kMaxOutputTokens);
    sampling.max_output_tokens = config.max_output_tokens();
  }
  if (config.has_temperature()) {
    checker.Number("config.temperature", config.temperature(), 0, 100);
    sampling.temperature = config.temperature();
  }
  if (config.has_top_p()) {
    checker.NumberAbove("config.top_p", config.top_p(), 0, 1);
    sampling.top_p = config.top_p();
  }
  if (config.has_top_k()) {
    checker.Integer("config.top_k", config.top_k(), 0, int64_t{1} << 20);
    sampling.top_k = config.top_k();
  }
  if (config.has_min_p()) {
    if (checker.Number("config.min_p", config.min_p(), 0, 1) && config.min_p() == 1) {
      checker.Fail("config.min_p", "must be below 1");
    }
    sampling.min_p = config.min_p();
  }
  if (config.has_repetition_penalty()) {
    checker.NumberAbove("config.repetition_penalty", config.repetition_penalty(), 0, 10);
    sampling.repetition_penalty = config.repetition_penalty();
  }
  if (config.has_logprobs()) {
    checker.Integer("config.logprobs", config.logprobs(), 0, kMaxLogprobs);
    sampling.logprobs = config.logprobs();
  }
  return sampling;
}

// The status of a request whose only fault may be an image.
absl::Status Verdict(const FieldChecker& checker, const std::string& model, const PromptInput& input) {
  if (checker.ok() && input.has_image) return ImageUnsupportedError(model);
  return checker.status();
}

}  // namespace

absl::StatusOr<GenerateCall> ParseGenerateRequest(const v1::GenerateRequest& request) {
  FieldChecker checker;
  GenerateCall call;
  call.model = ParseModel(checker, "model", request.model());
  call.input = ParsePromptInput(checker, request);
  call.sampling = ParseSampling(checker, request.config());
  if (request.config().has_seed()) call.seed = request.config().seed();
  checker.Count("config.stop_sequences", request.config().stop_sequences_size(), 0, kMaxStopSequences);
  for (int i = 0; i < request.config().stop_sequences_size(); ++i) {
    const std::string& stop = request.config().stop_sequences(i);
    checker.Text(absl::StrCat("config.stop_sequences[", i, "]"), stop, 1, kMaxStopBytes);
    call.stop_sequences.push_back(stop);
  }
  call.ignore_eos = request.config().ignore_eos();
  call.steering = ParseSteering(checker, call.model, request.steering());
  call.priority = ParsePriority(checker, request.priority());
  checker.Token("request_id", request.request_id(), kMaxRequestIdBytes);
  call.request_id = request.request_id();
  if (absl::Status status = Verdict(checker, call.model, call.input); !status.ok()) return status;
  return call;
}

absl::StatusOr<ScoreCall> ParseScoreRequest(const v1::ScoreRequest& request) {
  FieldChecker checker;
  ScoreCall call;
  call.model = ParseModel(checker, "model", request.model());
  call.input = ParsePromptInput(checker, request);
  checker.Count("continuations", request.continuations_size(), 1, kMaxContinuations);
  for (int i = 0; i < request.continuations_size(); ++i) {
    checker.Text(absl::StrCat("continuations[", i, "]"), request.continuations(i), 1, kMaxContinuationBytes);
    call.continuations.push_back(request.continuations(i));
  }
  call.steering = ParseSteering(checker, call.model, request.steering());
  call.priority = ParsePriority(checker, request.priority());
  checker.Token("request_id", request.request_id(), kMaxRequestIdBytes);
  if (absl::Status status = Verdict(checker, call.model, call.input); !status.ok()) return status;
  return call;
}

absl::StatusOr<CountTokensCall> ParseCountTokensRequest(const v1::CountTokensRequest& request) {
  FieldChecker checker;
  CountTokensCall call;
  call.model = ParseModel(checker, "model", request.model());
  call.input = ParsePromptInput(checker, request);
  if (absl::Status status = Verdict(checker, call.model, call.input); !status.ok()) return status;
  return call;
}

absl::StatusOr<DriftCall> ParseEvaluateDriftRequest(const v1::EvaluateDriftRequest& request) {
  FieldChecker checker;
  DriftCall call;
  call.model = ParseModel(checker, "parent", request.parent());
  if (request.steering().empty()) {
    checker.Fail("steering", absl::StrCat("must have 1 to ", kMaxSelections, " entries, has 0"));
  }
  call.steering = ParseSteering(checker, call.model, request.steering());
  checker.Token("suite", request.suite(), kMaxSuiteBytes);
  call.suite = request.suite();
  checker.Integer("max_items", request.max_items(), 0, 1'000'000);
  call.max_items = request.max_items();
  call.seed = request.seed();
  if (request.has_shots()) {
    checker.Integer("shots", request.shots(), 0, 5);
    call.shots = request.shots();
  }
  call.max_text_tokens = kDefaultTextTokens;
  if (request.has_max_text_tokens()) {
    checker.Integer("max_text_tokens", request.max_text_tokens(), 0, 1'000'000);
    call.max_text_tokens = request.max_text_tokens();
  }
  checker.Token("request_id", request.request_id(), kMaxRequestIdBytes);
  call.request_id = request.request_id();
  if (!checker.ok()) return checker.status();
  return call;
}

}  // namespace trimtab
