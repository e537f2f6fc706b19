#include "tools/study/continuations.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/time/clock.h"
#include "server/base/status_macros.h"
#include "server/engine/request.h"
#include "steering/steering_plan.h"

namespace trimtab {
namespace {

constexpr int64_t kCacheBytes = int64_t{128} << 20;

// Keeps an answer. Its fields are read after the counter has been told.
class AnswerSink final : public RequestSink {
 public:
  explicit AnswerSink(absl::BlockingCounter& left) : left_(left) {}
  void OnToken(OutputToken token) override { tokens.push_back(token.token); }
  void OnEnd(RequestEnd end) override {
    status = std::move(end.status);
    left_.DecrementCount();
  }
  std::vector<TokenId> tokens;
  absl::Status status;

 private:
  absl::BlockingCounter& left_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Continuations>> Continuations::Create(std::shared_ptr<const LoadedModel> model) {
  std::unique_ptr<Continuations> result(new Continuations(std::move(model)));
  TRIMTAB_ASSIGN_OR_RETURN(result->engine_,
                           Engine::Create(result->model_, {.kv_cache_bytes = kCacheBytes}, result->clock_, nullptr));
  return result;
}

absl::StatusOr<std::vector<std::vector<TokenId>>> Continuations::Run(const std::vector<std::vector<TokenId>>& prompts,
                                                                     const SteeringSetting& setting,
                                                                     int64_t max_tokens) {
  std::vector<TokenId> ends = model_->tokenizer->end_of_generation();
  if (model_->tokenizer->eos().has_value()) ends.push_back(*model_->tokenizer->eos());
  std::vector<std::shared_ptr<AnswerSink>> sinks;
  absl::BlockingCounter left(static_cast<int>(prompts.size()));
  absl::Status refused;
  for (const std::vector<TokenId>& prompt : prompts) {
    auto request = std::make_unique<Request>();
    request->id = absl::StrCat("study-", next_id_++);
    request->tokens = prompt;
    request->prompt_length = static_cast<int64_t>(prompt.size());
    request->sampling.max_output_tokens = max_tokens;
    request->sampling.end_tokens = ends;
    request->internal = true;
    request->arrival = absl::Now();
    if (setting.vector != nullptr) {
      request->plan = SteeringPlan({{.vector = setting.vector,
                                     .objective = "models/study/objectives/arm",
                                     .revision = 1,
                                     .strength = setting.strength,
                                     .apply_to = setting.apply_to}});
    }
    sinks.push_back(std::make_shared<AnswerSink>(left));
    request->sink = sinks.back();
    absl::Status submitted = engine_->Submit(std::move(request));
    if (!submitted.ok()) {
      left.DecrementCount();  // its sink is never called
      refused.Update(submitted);
    }
  }
  left.Wait();
  TRIMTAB_RETURN_IF_ERROR(refused);
  std::vector<std::vector<TokenId>> answers;
  for (const auto& sink : sinks) {
    TRIMTAB_RETURN_IF_ERROR(sink->status);
    answers.push_back(std::move(sink->tokens));
    // The token that ends an answer is no part of it.
    if (!answers.back().empty() && std::find(ends.begin(), ends.end(), answers.back().back()) != ends.end()) {
      answers.back().pop_back();
    }
  }
  return answers;
}

}  // namespace trimtab
