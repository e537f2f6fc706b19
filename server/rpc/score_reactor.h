// Score: one engine request per continuation, one answer when all have ended. Threads as in generate_reactor.h.
#ifndef TRIMTAB_SERVER_RPC_SCORE_REACTOR_H_
#define TRIMTAB_SERVER_RPC_SCORE_REACTOR_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/request.h"
#include "server/rpc/call_environment.h"
#include "server/rpc/validate.h"
#include "trimtab/v1/generation.pb.h"

namespace trimtab {

class ScoreReactor final : public grpc::ServerUnaryReactor, public std::enable_shared_from_this<ScoreReactor> {
 public:
  static grpc::ServerUnaryReactor* Start(CallEnvironment& environment, grpc::CallbackServerContext* context,
                                         const v1::ScoreRequest* request, v1::ScoreResponse* response);

  void OnCancel() override ABSL_LOCKS_EXCLUDED(mutex_);
  void OnDone() override { self_.reset(); }

 private:
  class Item;

  ScoreReactor(CallEnvironment& environment, grpc::CallbackServerContext* context, const v1::ScoreRequest* request,
               v1::ScoreResponse* response);

  void Prepare() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::vector<std::unique_ptr<Request>>> MakeRequests();
  void OnItemEnd(size_t index, RequestEnd end) ABSL_LOCKS_EXCLUDED(mutex_);
  // `count` items will not report any more; the last one lets the call finish.
  void Settle(size_t count, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  void AbortAll(FinishReason reason);
  void Complete() ABSL_LOCKS_EXCLUDED(mutex_);
  std::string ItemId(size_t index) const;

  CallEnvironment& environment_;
  grpc::CallbackServerContext* const context_;
  const v1::ScoreRequest* const request_;
  v1::ScoreResponse* const response_;
  const absl::Time arrival_;
  const std::string engine_id_;
  std::shared_ptr<ScoreReactor> self_;  // until OnDone

  // Written by Prepare before the engine knows the call.
  std::shared_ptr<ServedModel> model_;
  SteeringPlan plan_;

  absl::Mutex mutex_;
  std::vector<RequestEnd> ends_ ABSL_GUARDED_BY(mutex_);
  size_t remaining_ ABSL_GUARDED_BY(mutex_) = 0;  // items that will still report
  bool submitted_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);  // the first failure
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_SCORE_REACTOR_H_
