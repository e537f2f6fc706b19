// trimtab.v1.ObjectiveService: validate, change the registry, publish, answer. gRPC reactions post to the registry
// executor, where everything here runs.
#ifndef TRIMTAB_SERVER_RPC_OBJECTIVE_SERVICE_H_
#define TRIMTAB_SERVER_RPC_OBJECTIVE_SERVICE_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/clock.h"
#include "server/jobs/job_manager.h"
#include "server/objective_publisher.h"
#include "server/registry/registry.h"
#include "server/rpc/executor.h"
#include "server/rpc/model_directory.h"
#include "server/rpc/page_token.h"
#include "server/rpc/validate.h"
#include "steering/method_registry.h"
#include "steering/steering_method.h"
#include "trimtab/v1/objective.grpc.pb.h"

namespace trimtab {

class ObjectiveServiceImpl final : public v1::ObjectiveService::CallbackService {
 public:
  // All must outlive the gRPC server.
  struct Parts {
    const ModelDirectory& models;
    const MethodRegistry& methods;
    Registry& registry;
    JobManager& jobs;
    ObjectivePublisher& publisher;
    const PageTokenCodec& page_tokens;
    Executor& executor;
    const Clock& clock;
    // What a fit would work with, without fitting; unset: validations tell no time. `config`: null for the defaults.
    std::function<absl::StatusOr<FitPreview>(const std::string& model, const std::string& method,
                                             const google::protobuf::Any* config, const PairSet& pairs)>
        preview = nullptr;
  };
  explicit ObjectiveServiceImpl(const Parts& parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* RegisterObjective(grpc::CallbackServerContext* context,
                                              const v1::RegisterObjectiveRequest* request,
                                              google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* GetObjective(grpc::CallbackServerContext* context, const v1::GetObjectiveRequest* request,
                                         v1::Objective* response) override;
  grpc::ServerUnaryReactor* ListObjectives(grpc::CallbackServerContext* context,
                                           const v1::ListObjectivesRequest* request,
                                           v1::ListObjectivesResponse* response) override;
  grpc::ServerUnaryReactor* UpdateObjective(grpc::CallbackServerContext* context,
                                            const v1::UpdateObjectiveRequest* request,
                                            v1::Objective* response) override;
  grpc::ServerUnaryReactor* DeleteObjective(grpc::CallbackServerContext* context,
                                            const v1::DeleteObjectiveRequest* request,
                                            google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* ListRevisions(grpc::CallbackServerContext* context, const v1::ListRevisionsRequest* request,
                                          v1::ListRevisionsResponse* response) override;
  grpc::ServerUnaryReactor* GetRevision(grpc::CallbackServerContext* context, const v1::GetRevisionRequest* request,
                                        v1::RevisionSummary* response) override;
  grpc::ServerUnaryReactor* PromoteRevision(grpc::CallbackServerContext* context,
                                            const v1::PromoteRevisionRequest* request,
                                            v1::Objective* response) override;
  grpc::ServerUnaryReactor* RefitObjective(grpc::CallbackServerContext* context,
                                           const v1::RefitObjectiveRequest* request,
                                           google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* DisableObjective(grpc::CallbackServerContext* context,
                                             const v1::DisableObjectiveRequest* request,
                                             v1::Objective* response) override;
  grpc::ServerUnaryReactor* EnableObjective(grpc::CallbackServerContext* context,
                                            const v1::EnableObjectiveRequest* request,
                                            v1::Objective* response) override;
  grpc::ServerUnaryReactor* EvaluateStrength(grpc::CallbackServerContext* context,
                                             const v1::EvaluateStrengthRequest* request,
                                             google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* ExportRevision(grpc::CallbackServerContext* context,
                                           const v1::ExportRevisionRequest* request,
                                           v1::ExportRevisionResponse* response) override;
  grpc::ServerUnaryReactor* ImportRevision(grpc::CallbackServerContext* context,
                                           const v1::ImportRevisionRequest* request, v1::Objective* response) override;
  grpc::ServerUnaryReactor* GetAttributions(grpc::CallbackServerContext* context,
                                            const v1::GetAttributionsRequest* request,
                                            v1::GetAttributionsResponse* response) override;
  grpc::ServerUnaryReactor* ListSteeringMethods(grpc::CallbackServerContext* context,
                                                const v1::ListSteeringMethodsRequest* request,
                                                v1::ListSteeringMethodsResponse* response) override;
  grpc::ServerUnaryReactor* GetSteeringMethod(grpc::CallbackServerContext* context,
                                              const v1::GetSteeringMethodRequest* request,
                                              v1::SteeringMethod* response) override;

 private:
  absl::Status Register(const v1::RegisterObjectiveRequest& request, google::longrunning::Operation* response);
  absl::Status Refit(const v1::RefitObjectiveRequest& request, google::longrunning::Operation* response);
  absl::Status Evaluate(const v1::EvaluateStrengthRequest& request, google::longrunning::Operation* response);
  // Answers a call that only validates: what was found about `pairs` and how long fitting them takes. `config`: null
  // for the method's defaults.
  absl::Status Report(const PairSet& pairs, const ServedModel& model, const std::string& method,
                      const google::protobuf::Any* config, const std::string& objective,
                      google::longrunning::Operation* response) const;
  // DisableObjective and EnableObjective.
  absl::Status Switch(const std::string& name, const std::string& etag, ObjectiveRecord::State state,
                      v1::Objective* response);
  absl::Status Update(const v1::UpdateObjectiveRequest& request, v1::Objective* response);
  absl::Status Delete(const v1::DeleteObjectiveRequest& request);
  absl::Status Promote(const v1::PromoteRevisionRequest& request, v1::Objective* response);
  absl::Status Export(const v1::ExportRevisionRequest& request, v1::ExportRevisionResponse* response);
  absl::Status Import(const v1::ImportRevisionRequest& request, v1::Objective* response);
  absl::Status Attributions(const v1::GetAttributionsRequest& request, v1::GetAttributionsResponse* response);
  // Reads the objective, lets `change` (absl::Status(ObjectiveRecord&)) work on it and stores it; a concurrent change
  // makes it start again unless the caller named an etag. Publishes and fills `response`.
  template <typename Change>
  absl::Status Modify(const ObjectiveId& id, const std::string& etag, v1::Objective* response, Change change);

  const Parts parts_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_OBJECTIVE_SERVICE_H_
