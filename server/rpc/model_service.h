// trimtab.v1.ModelService. Reads look at memory only and are answered in the gRPC reaction; loading and unloading go to
// the executor, which writes the job, and are done by jobs.
#ifndef TRIMTAB_SERVER_RPC_MODEL_SERVICE_H_
#define TRIMTAB_SERVER_RPC_MODEL_SERVICE_H_

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/base/clock.h"
#include "server/jobs/job_manager.h"
#include "server/registry/registry.h"
#include "server/rpc/executor.h"
#include "server/rpc/model_admin.h"
#include "server/rpc/model_directory.h"
#include "server/rpc/page_token.h"
#include "trimtab/v1/model.grpc.pb.h"

namespace trimtab {

class ModelServiceImpl final : public v1::ModelService::CallbackService {
 public:
  // All must outlive the gRPC server.
  struct Parts {
    const ModelDirectory& models;
    ModelAdmin& admin;
    Registry& registry;
    JobManager& jobs;
    const PageTokenCodec& page_tokens;
    Executor& executor;
    const Clock& clock;
  };
  explicit ModelServiceImpl(Parts parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest* request,
                                     v1::Model* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* LoadModel(grpc::CallbackServerContext* context, const v1::LoadModelRequest* request,
                                      google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* context, const v1::UnloadModelRequest* request,
                                        google::longrunning::Operation* response) override;

 private:
  absl::Status Load(const v1::LoadModelRequest& request, google::longrunning::Operation* response)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Unload(const v1::UnloadModelRequest& request, google::longrunning::Operation* response)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Makes the job durable, lets `begin` take effect and starts it.
  absl::Status Submit(const JobRecord& job, absl::FunctionRef<void()> begin, google::longrunning::Operation* response)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Parts parts_;
  // From the look at what there is to the change: two calls for one name must not both pass.
  absl::Mutex mutex_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_MODEL_SERVICE_H_
