// google.longrunning.Operations over the job manager. gRPC reactions post to the registry executor; Wait holds no
// thread.
#ifndef TRIMTAB_SERVER_RPC_OPERATIONS_SERVICE_H_
#define TRIMTAB_SERVER_RPC_OPERATIONS_SERVICE_H_

#include "google/longrunning/operations.grpc.pb.h"
#include "server/base/clock.h"
#include "server/jobs/job_manager.h"
#include "server/registry/registry.h"
#include "server/rpc/executor.h"
#include "server/rpc/page_token.h"

namespace trimtab {

class OperationsServiceImpl final : public google::longrunning::Operations::CallbackService {
 public:
  // All must outlive the gRPC server.
  struct Parts {
    Registry& registry;
    JobManager& jobs;
    const PageTokenCodec& page_tokens;
    Executor& executor;
    const Clock& clock;
  };
  explicit OperationsServiceImpl(const Parts& parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* GetOperation(grpc::CallbackServerContext* context,
                                         const google::longrunning::GetOperationRequest* request,
                                         google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* ListOperations(grpc::CallbackServerContext* context,
                                           const google::longrunning::ListOperationsRequest* request,
                                           google::longrunning::ListOperationsResponse* response) override;
  grpc::ServerUnaryReactor* CancelOperation(grpc::CallbackServerContext* context,
                                            const google::longrunning::CancelOperationRequest* request,
                                            google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* DeleteOperation(grpc::CallbackServerContext* context,
                                            const google::longrunning::DeleteOperationRequest* request,
                                            google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* WaitOperation(grpc::CallbackServerContext* context,
                                          const google::longrunning::WaitOperationRequest* request,
                                          google::longrunning::Operation* response) override;

 private:
  class WaitReactor;

  // The operation with the objective as it is now in place of the one at the end of its fit.
  google::longrunning::Operation Load(const JobRecord& record);

  const Parts parts_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_OPERATIONS_SERVICE_H_
