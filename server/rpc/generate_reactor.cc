#include "server/rpc/generate_reactor.h"

#include <utility>
#include <vector>

#include "absl/random/random.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/rpc/call_deadline.h"
#include "server/rpc/call_tenant.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/validate.h"

namespace trimtab {
namespace {

// The status of a call that ended without an answer. `end.status` says why unless the engine had nothing to add.
absl::Status EndStatus(const RequestEnd& end) {
  if (!end.status.ok()) return end.status;
  switch (end.reason) {
    case FinishReason::kCancelled:
      return ReasonError(absl::StatusCode::kCancelled, kCancelled, "the call was cancelled");
    case FinishReason::kDeadline:
      return ReasonError(absl::StatusCode::kDeadlineExceeded, kDeadlineExceeded, "the call's deadline passed");
    case FinishReason::kError:
      return ReasonError(absl::StatusCode::kInternal, kInternal, "the request failed");
    default:
      return absl::OkStatus();
  }
}

}  // namespace

GenerationCall::GenerationCall(CallEnvironment& environment, grpc::CallbackServerContext* context,
                               const v1::GenerateRequest* request)
    : environment_(environment),
      context_(context),
      request_(request),
      arrival_(environment.clock->Now()),
      engine_id_(environment.NewId()) {}

void GenerationCall::Begin() {
  self_ = shared_from_this();
  const absl::Status posted = environment_.prep->Post([self = self_] { self->Prepare(); });
  if (!posted.ok()) Fail(posted);
}

absl::StatusOr<std::unique_ptr<Request>> GenerationCall::MakeRequest() {
  TRIMTAB_ASSIGN_OR_RETURN(std::string tenant, CallTenant(*context_));
  TRIMTAB_ASSIGN_OR_RETURN(GenerateCall call, ParseGenerateRequest(*request_));
  TRIMTAB_ASSIGN_OR_RETURN(model_, environment_.models->Find(call.model));
  TRIMTAB_ASSIGN_OR_RETURN(plan_, ResolvePlan(*environment_.vectors, model_->fingerprint(), call.steering));
  TRIMTAB_ASSIGN_OR_RETURN(std::vector<TokenId> tokens, model_->Encode(call.input));
  request_id_ = call.request_id.empty() ? engine_id_ : call.request_id;

  auto request = std::make_unique<Request>();
  request->id = engine_id_;
  request->prompt_length = static_cast<int64_t>(tokens.size());
  request->tokens = std::move(tokens);
  request->sampling = call.sampling;
  request->sampling.seed = call.seed ? *call.seed : absl::Uniform<uint64_t>(absl::BitGen());
  if (!call.ignore_eos) request->sampling.end_tokens = model_->end_tokens();
  request->plan = plan_;
  request->priority = call.priority;
  request->tenant = std::move(tenant);
  request->arrival = arrival_;
  request->deadline = CallDeadline(*context_);
  request->sink = shared_from_this();
  assembler_.emplace(*model_, std::move(call.stop_sequences), request->sampling.end_tokens,
                     request->sampling.logprobs >= 0);
  return request;
}

void GenerationCall::Prepare() {
  absl::StatusOr<std::unique_ptr<Request>> request = MakeRequest();
  if (!request.ok()) return Fail(request.status());
  bool cancelled = false;
  {
    absl::MutexLock lock(&mutex_);
    cancelled = cancelled_;
    submitted_ = !cancelled;
  }
  if (cancelled) return Fail(EndStatus({.reason = CancelReason()}));
  // From here on the engine may end the call at any time.
  const std::shared_ptr<ServedModel> model = model_;
  const std::string id = engine_id_;
  const absl::Status submitted = model->Submit(*std::move(request));
  if (!submitted.ok()) return Fail(submitted);
  {
    // A cancellation between the look above and Submit found nothing to abort.
    absl::MutexLock lock(&mutex_);
    cancelled = cancelled_;
  }
  if (cancelled) model->Abort(id, CancelReason());
}

void GenerationCall::Fail(const absl::Status& status) {
  {
    absl::MutexLock lock(&mutex_);
    finished_ = true;
  }
  environment_.TellRejected(status);
  FinishError(ToGrpcStatus(status));
}

FinishReason GenerationCall::CancelReason() const {
  return environment_.clock->Now() >= CallDeadline(*context_) ? FinishReason::kDeadline : FinishReason::kCancelled;
}

void GenerationCall::HandleCancel() {
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    if (!submitted_ || finished_) return;
  }
  model_->Abort(engine_id_, CancelReason());
}

void GenerationCall::OnToken(OutputToken token) {
  if (environment_.metrics != nullptr) environment_.metrics->AddQueuedTokens(1);
  absl::MutexLock lock(&mutex_);
  queue_.push_back(std::move(token));
  if (queue_.size() >= kMaxQueuedTokens) was_full_ = true;
  ScheduleDrain();
}

void GenerationCall::OnEnd(RequestEnd end) {
  bool break_off = false;
  {
    absl::MutexLock lock(&mutex_);
    // The engine gave up on a reader that takes nothing: its write would never end.
    break_off = writing_ && end.reason == FinishReason::kCancelled && !cancelled_;
    breaking_off_ = break_off;
    end_ = std::move(end);
    ScheduleDrain();
  }
  if (break_off) environment_.egress->PostAlways([self = shared_from_this()] { self->BreakOff(); });
}

bool GenerationCall::Ready() const {
  absl::MutexLock lock(&mutex_);
  return queue_.size() < kMaxQueuedTokens;
}

void GenerationCall::BreakOff() {
  // The context is valid: no drain, and so no Finish, while breaking_off_ is set.
  context_->TryCancel();
  absl::MutexLock lock(&mutex_);
  breaking_off_ = false;
  ScheduleDrain();
}

void GenerationCall::HandleWriteDone(bool ok) {
  bool abort = false;
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    abort = !ok && !end_;
    ScheduleDrain();
  }
  if (abort) model_->Abort(engine_id_, CancelReason());
}

void GenerationCall::ScheduleDrain() {
  if (draining_ || writing_ || breaking_off_ || finished_ || (queue_.empty() && !end_)) return;
  draining_ = true;
  environment_.egress->PostAlways([self = shared_from_this()] { self->Drain(); });
}

void GenerationCall::Drain() {
  if (streaming()) piece_.Clear();
  for (;;) {
    std::deque<OutputToken> tokens;
    std::optional<RequestEnd> end;
    bool was_full = false;
    {
      absl::MutexLock lock(&mutex_);
      tokens.swap(queue_);
      end.swap(end_);
      std::swap(was_full, was_full_);
    }
    if (environment_.metrics != nullptr) environment_.metrics->AddQueuedTokens(-static_cast<int64_t>(tokens.size()));
    if (was_full) model_->Resume(engine_id_);
    for (const OutputToken& token : tokens) assembler_->Push(token, piece_);
    if (end) {
      {
        absl::MutexLock lock(&mutex_);
        finished_ = true;
      }
      return Complete(*end);
    }
    if (assembler_->stopped() && !stop_sent_) {
      stop_sent_ = true;
      model_->Abort(engine_id_, FinishReason::kStopSequence);
    }
    const bool worth_writing = streaming() && (!piece_.text().empty() || piece_.token_ids_size() > 0);
    {
      absl::MutexLock lock(&mutex_);
      if (!worth_writing && (!queue_.empty() || end_)) continue;
      draining_ = false;
      writing_ = worth_writing;
    }
    if (worth_writing) {
      piece_.set_request_id(request_id_);
      Write(&piece_);
    }
    return;
  }
}

void GenerationCall::Complete(const RequestEnd& end) {
  FinishReason reason = end.reason;
  assembler_->Flush(piece_);
  // A stop sequence counts also when the last token brought it, whatever the engine ended for.
  const bool answered =
      reason == FinishReason::kStop || reason == FinishReason::kStopSequence || reason == FinishReason::kLength;
  if (answered && assembler_->stopped()) reason = FinishReason::kStopSequence;
  environment_.TellSteered(plan_, end.doses);
  const absl::Status status = EndStatus(end);
  if (!status.ok()) return FinishError(ToGrpcStatus(status));
  piece_.set_request_id(request_id_);
  piece_.set_finish_reason(static_cast<v1::FinishReason>(reason));
  piece_.mutable_usage()->set_prompt_tokens(static_cast<int32_t>(end.usage.prompt_tokens));
  piece_.mutable_usage()->set_cached_prompt_tokens(static_cast<int32_t>(end.usage.cached_prompt_tokens));
  piece_.mutable_usage()->set_output_tokens(static_cast<int32_t>(assembler_->token_count()));
  v1::Timing& timing = *piece_.mutable_timing();
  *timing.mutable_queue() = ToProto(end.timing.queue);
  *timing.mutable_prefill() = ToProto(end.timing.prefill);
  *timing.mutable_decode() = ToProto(end.timing.decode);
  *timing.mutable_time_to_first_token() = ToProto(end.timing.queue + end.timing.prefill);
  AddApplied(plan_, end.doses, piece_.mutable_applied());
  FinishOk(&piece_);
}

grpc::ServerUnaryReactor* UnaryGenerateReactor::Start(CallEnvironment& environment,
                                                      grpc::CallbackServerContext* context,
                                                      const v1::GenerateRequest* request,
                                                      v1::GenerateResponse* response) {
  const std::shared_ptr<UnaryGenerateReactor> reactor(
      new UnaryGenerateReactor(environment, context, request, response));
  reactor->Begin();
  return reactor.get();
}

void UnaryGenerateReactor::FinishOk(v1::GenerateResponse* last) {
  response_->Swap(last);
  Finish(grpc::Status::OK);
}

grpc::ServerWriteReactor<v1::GenerateResponse>* StreamGenerateReactor::Start(CallEnvironment& environment,
                                                                             grpc::CallbackServerContext* context,
                                                                             const v1::GenerateRequest* request) {
  const std::shared_ptr<StreamGenerateReactor> reactor(new StreamGenerateReactor(environment, context, request));
  reactor->Begin();
  return reactor.get();
}

void StreamGenerateReactor::FinishOk(v1::GenerateResponse* last) {
  StartWriteAndFinish(last, grpc::WriteOptions(), grpc::Status::OK);
}

}  // namespace trimtab
