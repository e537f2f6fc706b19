#include "server/rpc/score_reactor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/rpc/call_deadline.h"
#include "server/rpc/call_tenant.h"
#include "server/rpc/grpc_status.h"

namespace trimtab {

// The sink of one continuation.
class ScoreReactor::Item final : public RequestSink {
 public:
  Item(std::shared_ptr<ScoreReactor> reactor, size_t index) : reactor_(std::move(reactor)), index_(index) {}
  void OnToken(OutputToken) override {}
  void OnEnd(RequestEnd end) override { reactor_->OnItemEnd(index_, std::move(end)); }

 private:
  const std::shared_ptr<ScoreReactor> reactor_;
  const size_t index_;
};

grpc::ServerUnaryReactor* ScoreReactor::Start(CallEnvironment& environment, grpc::CallbackServerContext* context,
                                              const v1::ScoreRequest* request, v1::ScoreResponse* response) {
  const std::shared_ptr<ScoreReactor> reactor(new ScoreReactor(environment, context, request, response));
  reactor->self_ = reactor;
  const absl::Status posted = environment.prep->Post([reactor] { reactor->Prepare(); });
  if (!posted.ok()) reactor->Finish(ToGrpcStatus(posted));
  return reactor.get();
}

ScoreReactor::ScoreReactor(CallEnvironment& environment, grpc::CallbackServerContext* context,
                           const v1::ScoreRequest* request, v1::ScoreResponse* response)
    : environment_(environment),
      context_(context),
      request_(request),
      response_(response),
      arrival_(environment.clock->Now()),
      engine_id_(environment.NewId()) {}

std::string ScoreReactor::ItemId(size_t index) const { return absl::StrCat(engine_id_, "/", index); }

absl::StatusOr<std::vector<std::unique_ptr<Request>>> ScoreReactor::MakeRequests() {
  TRIMTAB_ASSIGN_OR_RETURN(const std::string tenant, CallTenant(*context_));
  TRIMTAB_ASSIGN_OR_RETURN(const ScoreCall call, ParseScoreRequest(*request_));
  TRIMTAB_ASSIGN_OR_RETURN(model_, environment_.models->Find(call.model));
  TRIMTAB_ASSIGN_OR_RETURN(plan_, ResolvePlan(*environment_.vectors, model_->fingerprint(), call.steering));
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<TokenId> prompt, model_->Encode(call.input));
  std::vector<std::unique_ptr<Request>> requests;
  for (size_t i = 0; i < call.continuations.size(); ++i) {
    const std::vector<TokenId> continuation = model_->EncodeContinuation(call.continuations[i]);
    auto request = std::make_unique<Request>();
    request->id = ItemId(i);
    request->tokens = prompt;
    request->tokens.insert(request->tokens.end(), continuation.begin(), continuation.end());
    request->prompt_length = static_cast<int64_t>(prompt.size());
    request->score = true;
    request->plan = plan_;
    request->priority = call.priority;
    request->tenant = tenant;
    request->arrival = arrival_;
    request->deadline = CallDeadline(*context_);
    request->sink = std::make_shared<Item>(shared_from_this(), i);
    requests.push_back(std::move(request));
  }
  return requests;
}

void ScoreReactor::Prepare() {
  absl::StatusOr<std::vector<std::unique_ptr<Request>>> requests = MakeRequests();
  if (!requests.ok()) {
    environment_.TellRejected(requests.status());
    Finish(ToGrpcStatus(requests.status()));
    return;
  }
  const size_t count = requests->size();
  bool cancelled = false;
  {
    absl::MutexLock lock(&mutex_);
    ends_.resize(count);
    remaining_ = count;
    cancelled = cancelled_;
    submitted_ = true;
  }
  if (cancelled) {
    Settle(count, ReasonError(absl::StatusCode::kCancelled, kCancelled, "the call was cancelled"));
    return;
  }
  // The items may all end before this function does.
  const std::shared_ptr<ScoreReactor> self = shared_from_this();
  for (size_t i = 0; i < count; ++i) {
    const absl::Status submitted = model_->Submit(std::move((*requests)[i]));
    if (!submitted.ok()) {
      environment_.TellRejected(submitted);
      for (size_t j = 0; j < i; ++j) model_->Abort(ItemId(j), FinishReason::kCancelled);
      Settle(count - i, submitted);
      return;
    }
  }
  {
    // A cancellation during the loop may have found some items not yet submitted.
    absl::MutexLock lock(&mutex_);
    cancelled = cancelled_;
  }
  if (cancelled) AbortAll(FinishReason::kCancelled);
}

void ScoreReactor::AbortAll(FinishReason reason) {
  for (int i = 0; i < request_->continuations_size(); ++i) model_->Abort(ItemId(i), reason);
}

void ScoreReactor::OnCancel() {
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    if (!submitted_ || remaining_ == 0) return;
  }
  AbortAll(environment_.clock->Now() >= CallDeadline(*context_) ? FinishReason::kDeadline : FinishReason::kCancelled);
}

void ScoreReactor::OnItemEnd(size_t index, RequestEnd end) {
  const absl::Status status = end.status;
  {
    absl::MutexLock lock(&mutex_);
    ends_[index] = std::move(end);
  }
  Settle(1, status);
}

void ScoreReactor::Settle(size_t count, const absl::Status& status) {
  bool last = false;
  {
    absl::MutexLock lock(&mutex_);
    if (status_.ok()) status_ = status;
    remaining_ -= count;
    last = remaining_ == 0;
  }
  if (last) environment_.egress->PostAlways([self = shared_from_this()] { self->Complete(); });
}

void ScoreReactor::Complete() {
  std::vector<RequestEnd> ends;
  absl::Status status;
  {
    absl::MutexLock lock(&mutex_);
    ends.swap(ends_);
    status = status_;
  }
  if (!status.ok()) {
    Finish(ToGrpcStatus(status));
    return;
  }
  std::vector<AppliedDose> doses(plan_.entries().size());
  int64_t prompt_tokens = 0, cached = 0, output_tokens = 0;
  for (const RequestEnd& end : ends) {
    v1::ContinuationScore& score = *response_->add_scores();
    double log_likelihood = 0;
    bool greedy = true;
    for (const ScoredToken& token : end.scored) {
      log_likelihood += token.logprob;
      greedy = greedy && token.is_greedy;
      score.add_token_logprobs(token.logprob);
    }
    score.set_log_likelihood(log_likelihood);
    score.set_token_count(static_cast<int32_t>(end.scored.size()));
    score.set_is_greedy(greedy);
    prompt_tokens = std::max(prompt_tokens, end.usage.prompt_tokens);
    cached = std::max(cached, end.usage.cached_prompt_tokens);
    output_tokens += static_cast<int64_t>(end.scored.size());
    for (size_t i = 0; i < std::min(doses.size(), end.doses.size()); ++i) {
      const int64_t steered = doses[i].steered_tokens + end.doses[i].steered_tokens;
      if (steered == 0) continue;
      doses[i].mean_relative_dose =
          (doses[i].mean_relative_dose * static_cast<float>(doses[i].steered_tokens) +
           end.doses[i].mean_relative_dose * static_cast<float>(end.doses[i].steered_tokens)) /
          static_cast<float>(steered);
      doses[i].steered_tokens = steered;
    }
  }
  environment_.TellSteered(plan_, doses);
  AddApplied(plan_, doses, response_->mutable_applied());
  response_->mutable_usage()->set_prompt_tokens(static_cast<int32_t>(prompt_tokens));
  response_->mutable_usage()->set_cached_prompt_tokens(static_cast<int32_t>(cached));
  response_->mutable_usage()->set_output_tokens(static_cast<int32_t>(output_tokens));
  Finish(grpc::Status::OK);
}

}  // namespace trimtab
