// Generate and StreamGenerate: one object per call, from the request to Finish.
//
// Threads: the gRPC reaction posts to the prep pool, which parses, resolves, encodes and submits. The engine thread
// pushes tokens (OnToken, OnEnd: a lock and a post). The egress pool drains them into a response. gRPC reactions
// (OnWriteDone, OnCancel) only set flags and post. One drain at a time; one write in flight; one Finish.
#ifndef TRIMTAB_SERVER_RPC_GENERATE_REACTOR_H_
#define TRIMTAB_SERVER_RPC_GENERATE_REACTOR_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/request.h"
#include "server/rpc/call_environment.h"
#include "server/rpc/response_assembler.h"
#include "trimtab/v1/generation.pb.h"

namespace trimtab {

// What unary and streaming have in common. Keeps itself alive until gRPC's OnDone; the engine holds it as a sink.
class GenerationCall : public RequestSink, public std::enable_shared_from_this<GenerationCall> {
 public:
  // Tokens a slow reader may lag behind before its sequence is paused.
  static constexpr size_t kMaxQueuedTokens = 256;

  ~GenerationCall() override = default;

  void OnToken(OutputToken token) override ABSL_LOCKS_EXCLUDED(mutex_);
  void OnEnd(RequestEnd end) override ABSL_LOCKS_EXCLUDED(mutex_);
  bool Ready() const override ABSL_LOCKS_EXCLUDED(mutex_);

 protected:
  GenerationCall(CallEnvironment& environment, grpc::CallbackServerContext* context,
                 const v1::GenerateRequest* request);

  // Called once, when shared_from_this works.
  void Begin() ABSL_LOCKS_EXCLUDED(mutex_);
  void HandleCancel() ABSL_LOCKS_EXCLUDED(mutex_);
  void HandleWriteDone(bool ok) ABSL_LOCKS_EXCLUDED(mutex_);
  void HandleDone() { self_.reset(); }

  // Whether pieces are written as they come.
  virtual bool streaming() const = 0;
  virtual void Write(const v1::GenerateResponse* piece) = 0;
  // The end of a call that went well; `last` has the final fields.
  virtual void FinishOk(v1::GenerateResponse* last) = 0;
  virtual void FinishError(const grpc::Status& status) = 0;

 private:
  void Prepare() ABSL_LOCKS_EXCLUDED(mutex_);
  // Parses, resolves and encodes; fills plan_, model_, assembler_.
  absl::StatusOr<std::unique_ptr<Request>> MakeRequest();
  void Fail(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  // Posts a drain if there is something to do and none is under way.
  void ScheduleDrain() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drain() ABSL_LOCKS_EXCLUDED(mutex_);
  void Complete(const RequestEnd& end);
  // A stalled reader leaves a write hanging for ever: breaks the connection's stream off.
  void BreakOff() ABSL_LOCKS_EXCLUDED(mutex_);
  FinishReason CancelReason() const;

  CallEnvironment& environment_;
  grpc::CallbackServerContext* const context_;
  const v1::GenerateRequest* const request_;
  const absl::Time arrival_;
  const std::string engine_id_;
  std::string request_id_;
  std::shared_ptr<GenerationCall> self_;  // until OnDone

  // Written by Prepare before the engine knows the call.
  std::shared_ptr<ServedModel> model_;
  SteeringPlan plan_;
  std::optional<ResponseAssembler> assembler_;  // then the drain's
  v1::GenerateResponse piece_;                  // the drain's, gRPC's while a write is in flight
  bool stop_sent_ = false;                      // the drain's

  mutable absl::Mutex mutex_;
  std::deque<OutputToken> queue_ ABSL_GUARDED_BY(mutex_);
  std::optional<RequestEnd> end_ ABSL_GUARDED_BY(mutex_);
  bool submitted_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool breaking_off_ ABSL_GUARDED_BY(mutex_) = false;
  bool was_full_ ABSL_GUARDED_BY(mutex_) = false;  // the engine may have paused the sequence
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

class UnaryGenerateReactor final : public grpc::ServerUnaryReactor, public GenerationCall {
 public:
  static grpc::ServerUnaryReactor* Start(CallEnvironment& environment, grpc::CallbackServerContext* context,
                                         const v1::GenerateRequest* request, v1::GenerateResponse* response);

  void OnCancel() override { HandleCancel(); }
  void OnDone() override { HandleDone(); }

 private:
  UnaryGenerateReactor(CallEnvironment& environment, grpc::CallbackServerContext* context,
                       const v1::GenerateRequest* request, v1::GenerateResponse* response)
      : GenerationCall(environment, context, request), response_(response) {}

  bool streaming() const override { return false; }
  void Write(const v1::GenerateResponse*) override {}
  void FinishOk(v1::GenerateResponse* last) override;
  void FinishError(const grpc::Status& status) override { Finish(status); }

  v1::GenerateResponse* const response_;
};

class StreamGenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse>, public GenerationCall {
 public:
  static grpc::ServerWriteReactor<v1::GenerateResponse>* Start(CallEnvironment& environment,
                                                               grpc::CallbackServerContext* context,
                                                               const v1::GenerateRequest* request);

  void OnWriteDone(bool ok) override { HandleWriteDone(ok); }
  void OnCancel() override { HandleCancel(); }
  void OnDone() override { HandleDone(); }

 private:
  StreamGenerateReactor(CallEnvironment& environment, grpc::CallbackServerContext* context,
                        const v1::GenerateRequest* request)
      : GenerationCall(environment, context, request) {}

  bool streaming() const override { return true; }
  void Write(const v1::GenerateResponse* piece) override { StartWrite(piece); }
  void FinishOk(v1::GenerateResponse* last) override;
  void FinishError(const grpc::Status& status) override { Finish(status); }
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_GENERATE_REACTOR_H_
