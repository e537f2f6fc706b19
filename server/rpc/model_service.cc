#include "server/rpc/model_service.h"

#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "google/protobuf/empty.pb.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/resource_id.h"
#include "server/rpc/to_proto.h"
#include "server/rpc/unary.h"
#include "server/rpc/validate.h"

namespace trimtab {
namespace {

grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

// A job of `kind` on the model `name`. Two requests with the same hash ask for the same thing.
template <typename Metadata, typename Request>
JobRecord MakeModelJob(std::string_view kind, const std::string& name, Request request, absl::Time now) {
  Metadata metadata;
  metadata.set_model(name);
  metadata.set_phase(Metadata::PHASE_QUEUED);
  *metadata.mutable_create_time() = ToProto(now);
  *metadata.mutable_update_time() = ToProto(now);
  JobRecord job;
  job.name = OperationName(NewResourceId(kind, now));
  job.kind = std::string(kind);
  job.target = name;
  job.request_id = request.request_id();
  request.clear_request_id();
  job.request = request.SerializeAsString();
  job.request_hash = Sha256Hex(job.request);
  job.metadata = metadata.SerializeAsString();
  job.create_time = job.update_time = now;
  return job;
}

}  // namespace

absl::Status ModelServiceImpl::Submit(const JobRecord& job, absl::FunctionRef<void()> begin,
                                      google::longrunning::Operation* response) {
  TRIMTAB_RETURN_IF_ERROR(parts_.jobs.Reserve(JobLane::kOperator));
  const absl::StatusOr<JobRecord> stored = parts_.registry.CreateJob(job);
  if (!stored.ok()) {
    parts_.jobs.Unreserve(JobLane::kOperator);
    return stored.status();
  }
  begin();
  parts_.jobs.Enqueue(*stored);
  *response = ToProto(*stored);
  return absl::OkStatus();
}

absl::Status ModelServiceImpl::Load(const v1::LoadModelRequest& request, google::longrunning::Operation* response) {
  TRIMTAB_RETURN_IF_ERROR(ParseLoadModelRequest(request));
  const JobRecord job =
      MakeModelJob<v1::LoadModelMetadata>(kLoadJob, ModelName(request.model_id()), request, parts_.clock.Now());
  absl::MutexLock lock(&mutex_);
  if (!request.validate_only()) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::optional<JobRecord> earlier, parts_.registry.FindEarlierJob(job));
    if (earlier) {
      *response = ToProto(*earlier);
      return absl::OkStatus();
    }
  }
  TRIMTAB_ASSIGN_OR_RETURN(const v1::Model model, parts_.admin.CheckLoad(request));
  if (request.validate_only()) {
    response->set_done(true);
    response->mutable_response()->PackFrom(model);
    return absl::OkStatus();
  }
  return Submit(
      job, [&] { parts_.admin.BeginLoad(model); }, response);
}

absl::Status ModelServiceImpl::Unload(const v1::UnloadModelRequest& request, google::longrunning::Operation* response) {
  TRIMTAB_ASSIGN_OR_RETURN(const UnloadModelCall call, ParseUnloadModelRequest(request));
  const JobRecord job = MakeModelJob<v1::UnloadModelMetadata>(kUnloadJob, request.name(), request, parts_.clock.Now());
  absl::MutexLock lock(&mutex_);
  if (!request.validate_only()) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::optional<JobRecord> earlier, parts_.registry.FindEarlierJob(job));
    if (earlier) {
      *response = ToProto(*earlier);
      return absl::OkStatus();
    }
  }
  TRIMTAB_RETURN_IF_ERROR(parts_.admin.CheckUnload(call.model));
  if (request.validate_only()) {
    response->set_done(true);
    response->mutable_response()->PackFrom(google::protobuf::Empty());
    return absl::OkStatus();
  }
  return Submit(
      job, [&] { parts_.admin.BeginUnload(call.model); }, response);
}

grpc::ServerUnaryReactor* ModelServiceImpl::GetModel(grpc::CallbackServerContext* context,
                                                     const v1::GetModelRequest* request, v1::Model* response) {
  return FinishNow(context, [&]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const std::string id, ParseGetModelRequest(*request));
    TRIMTAB_ASSIGN_OR_RETURN(*response, parts_.models.Describe(id));
    return absl::OkStatus();
  }());
}

grpc::ServerUnaryReactor* ModelServiceImpl::ListModels(grpc::CallbackServerContext* context,
                                                       const v1::ListModelsRequest* request,
                                                       v1::ListModelsResponse* response) {
  return FinishNow(context, [&]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const ListCall call, ParseListModelsRequest(*request, parts_.page_tokens));
    const std::shared_ptr<const ModelDirectory::Entries> models = parts_.models.snapshot();
    for (auto it = models->upper_bound(call.page.after); it != models->end(); ++it) {
      if (response->models_size() == call.page.size) {
        response->set_next_page_token(parts_.page_tokens.Encode(call.scope, std::prev(it)->first));
        break;
      }
      *response->add_models() = it->second.Describe();
    }
    return absl::OkStatus();
  }());
}

grpc::ServerUnaryReactor* ModelServiceImpl::LoadModel(grpc::CallbackServerContext* context,
                                                      const v1::LoadModelRequest* request,
                                                      google::longrunning::Operation* response) {
  return RunUnary(parts_.executor, context, [=, this] { return Load(*request, response); });
}

grpc::ServerUnaryReactor* ModelServiceImpl::UnloadModel(grpc::CallbackServerContext* context,
                                                        const v1::UnloadModelRequest* request,
                                                        google::longrunning::Operation* response) {
  return RunUnary(parts_.executor, context, [=, this] { return Unload(*request, response); });
}

}  // namespace trimtab
