// trimtab.v1.DriftService: evaluations are jobs, reports are records. gRPC reactions post to the registry executor.
#ifndef TRIMTAB_SERVER_RPC_DRIFT_SERVICE_H_
#define TRIMTAB_SERVER_RPC_DRIFT_SERVICE_H_

#include "absl/status/status.h"
#include "server/base/clock.h"
#include "server/jobs/job_manager.h"
#include "server/registry/registry.h"
#include "server/rpc/executor.h"
#include "server/rpc/page_token.h"
#include "server/rpc/model_directory.h"
#include "steering/vector_store.h"
#include "trimtab/v1/drift.grpc.pb.h"

namespace trimtab {

class DriftServiceImpl final : public v1::DriftService::CallbackService {
 public:
  // All must outlive the gRPC server.
  struct Parts {
    const ModelDirectory& models;
    const VectorStore& vectors;
    Registry& registry;
    JobManager& jobs;
    const PageTokenCodec& page_tokens;
    Executor& executor;
    const Clock& clock;
  };
  explicit DriftServiceImpl(const Parts& parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* EvaluateDrift(grpc::CallbackServerContext* context, const v1::EvaluateDriftRequest* request,
                                          google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* GetDriftReport(grpc::CallbackServerContext* context,
                                           const v1::GetDriftReportRequest* request,
                                           v1::DriftReport* response) override;
  grpc::ServerUnaryReactor* ListDriftReports(grpc::CallbackServerContext* context,
                                             const v1::ListDriftReportsRequest* request,
                                             v1::ListDriftReportsResponse* response) override;
  grpc::ServerUnaryReactor* DeleteDriftReport(grpc::CallbackServerContext* context,
                                              const v1::DeleteDriftReportRequest* request,
                                              google::protobuf::Empty* response) override;

 private:
  absl::Status Evaluate(const v1::EvaluateDriftRequest& request, google::longrunning::Operation* response);

  const Parts parts_;
};

// The job of an evaluation: its stored request names revisions, strengths and suite, so that what is measured is what
// served when it was asked for. Errors: RESOURCE_NOT_FOUND for a suite that the model does not have.
absl::StatusOr<JobRecord> MakeDriftJob(const v1::EvaluateDriftRequest& request, const v1::Model& model,
                                       const SteeringPlan& plan, absl::Time now);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_DRIFT_SERVICE_H_
