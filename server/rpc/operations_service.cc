#include "server/rpc/operations_service.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/rpc/call_deadline.h"
#include "server/rpc/to_proto.h"
#include "server/rpc/unary.h"
#include "server/rpc/validate.h"

namespace trimtab {

// Finishes when the job manager calls back or the call is cancelled, whichever comes first.
class OperationsServiceImpl::WaitReactor final : public grpc::ServerUnaryReactor,
                                                 public std::enable_shared_from_this<WaitReactor> {
 public:
  WaitReactor(OperationsServiceImpl* service, google::longrunning::Operation* response)
      : service_(service), response_(response) {}

  void Start(const WaitCall& call, absl::Time deadline) {
    self_ = shared_from_this();
    JobManager& jobs = service_->parts_.jobs;
    const absl::Status posted = service_->parts_.executor.Post([self = self_, &jobs, call, deadline] {
      jobs.Wait(call.name, deadline, [self](absl::StatusOr<JobRecord> record) { self->OnRecord(std::move(record)); });
    });
    if (!posted.ok()) FinishOnce(posted, nullptr);
  }

  void Refuse(const absl::Status& status) {
    self_ = shared_from_this();
    FinishOnce(status, nullptr);
  }

  void OnCancel() override {
    FinishOnce(ReasonError(absl::StatusCode::kCancelled, kCancelled, "the call was cancelled"), nullptr);
  }
  void OnDone() override { self_.reset(); }

 private:
  // On a thread of the job manager: reading the result belongs on the executor.
  void OnRecord(absl::StatusOr<JobRecord> record) {
    {
      absl::MutexLock lock(&mutex_);
      if (finished_) return;
    }
    service_->parts_.executor.PostAlways([self = shared_from_this(), record = std::move(record)] {
      if (!record.ok()) return self->FinishOnce(record.status(), nullptr);
      const google::longrunning::Operation operation = self->service_->Load(*record);
      self->FinishOnce(absl::OkStatus(), &operation);
    });
  }

  void FinishOnce(const absl::Status& status, const google::longrunning::Operation* operation) {
    {
      absl::MutexLock lock(&mutex_);
      if (finished_) return;
      finished_ = true;
    }
    if (operation != nullptr) *response_ = *operation;
    Finish(ToGrpcStatus(status));
  }

  OperationsServiceImpl* const service_;
  google::longrunning::Operation* const response_;
  std::shared_ptr<WaitReactor> self_;  // until OnDone
  absl::Mutex mutex_;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

google::longrunning::Operation OperationsServiceImpl::Load(const JobRecord& record) {
  google::longrunning::Operation operation = ToProto(record);
  const bool fit = record.kind == kFitJob || record.kind == kRefitJob;
  if (!fit || record.state != JobRecord::State::kSucceeded) return operation;
  // Deleted meanwhile: the stored result stands.
  const absl::StatusOr<ObjectiveRecord> objective = parts_.registry.GetObjective(record.target);
  if (!objective.ok() || objective->uid != record.objective_uid) return operation;
  const absl::StatusOr<v1::Objective> response = LoadObjective(parts_.registry, *objective);
  if (response.ok()) operation.mutable_response()->PackFrom(*response);
  return operation;
}

grpc::ServerUnaryReactor* OperationsServiceImpl::GetOperation(grpc::CallbackServerContext* context,
                                                              const google::longrunning::GetOperationRequest* request,
                                                              google::longrunning::Operation* response) {
  return RunUnary(parts_.executor, context, [=, this]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const std::string name, ParseOperationRequest(request->name()));
    TRIMTAB_ASSIGN_OR_RETURN(const JobRecord record, parts_.jobs.Get(name));
    *response = Load(record);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* OperationsServiceImpl::ListOperations(
    grpc::CallbackServerContext* context, const google::longrunning::ListOperationsRequest* request,
    google::longrunning::ListOperationsResponse* response) {
  return RunUnary(parts_.executor, context, [=, this]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const ListCall call, ParseListOperationsRequest(*request, parts_.page_tokens));
    TRIMTAB_ASSIGN_OR_RETURN(const std::vector<JobRecord> records,
                             parts_.registry.ListJobs({.after = call.page.after, .limit = call.page.size + 1}));
    for (const JobRecord& record : records) {
      if (response->operations_size() == call.page.size) {
        response->set_next_page_token(parts_.page_tokens.Encode(call.scope, response->operations().rbegin()->name()));
        break;
      }
      // With the live metadata of a running job; it may be deleted meanwhile.
      absl::StatusOr<JobRecord> live = parts_.jobs.Get(record.name);
      *response->add_operations() = Load(live.ok() ? *live : record);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* OperationsServiceImpl::CancelOperation(
    grpc::CallbackServerContext* context, const google::longrunning::CancelOperationRequest* request,
    google::protobuf::Empty*) {
  return RunUnary(parts_.executor, context, [=, this]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const std::string name, ParseOperationRequest(request->name()));
    return parts_.jobs.Cancel(name);
  });
}

grpc::ServerUnaryReactor* OperationsServiceImpl::DeleteOperation(
    grpc::CallbackServerContext* context, const google::longrunning::DeleteOperationRequest* request,
    google::protobuf::Empty*) {
  return RunUnary(parts_.executor, context, [=, this]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const std::string name, ParseOperationRequest(request->name()));
    return parts_.registry.DeleteJob(name);
  });
}

grpc::ServerUnaryReactor* OperationsServiceImpl::WaitOperation(grpc::CallbackServerContext* context,
                                                               const google::longrunning::WaitOperationRequest* request,
                                                               google::longrunning::Operation* response) {
  const auto reactor = std::make_shared<WaitReactor>(this, response);
  const absl::StatusOr<WaitCall> call = ParseWaitOperationRequest(*request);
  if (call.ok()) {
    reactor->Start(*call, std::min(parts_.clock.Now() + call->timeout, CallDeadline(*context)));
  } else {
    reactor->Refuse(call.status());
  }
  return reactor.get();
}

}  // namespace trimtab
