// trimtab.v1.GenerationService: thin; the work is in generate_reactor, score_reactor and the engine. gRPC reactions.
#ifndef TRIMTAB_SERVER_RPC_GENERATION_SERVICE_H_
#define TRIMTAB_SERVER_RPC_GENERATION_SERVICE_H_

#include "server/rpc/call_environment.h"
#include "trimtab/v1/generation.grpc.pb.h"

namespace trimtab {

class GenerationServiceImpl final : public v1::GenerationService::CallbackService {
 public:
  // `environment` must outlive the gRPC server.
  explicit GenerationServiceImpl(CallEnvironment& environment) : environment_(environment) {}

  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* context, const v1::GenerateRequest* request,
                                     v1::GenerateResponse* response) override;
  grpc::ServerWriteReactor<v1::GenerateResponse>* StreamGenerate(grpc::CallbackServerContext* context,
                                                                 const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context, const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerUnaryReactor* CountTokens(grpc::CallbackServerContext* context, const v1::CountTokensRequest* request,
                                        v1::CountTokensResponse* response) override;

 private:
  CallEnvironment& environment_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_GENERATION_SERVICE_H_
