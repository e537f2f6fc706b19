// trimtab.v1.ModelService. gRPC reactions: it reads memory only, so it answers in the reaction.
#ifndef TRIMTAB_SERVER_RPC_MODEL_SERVICE_H_
#define TRIMTAB_SERVER_RPC_MODEL_SERVICE_H_

#include "server/rpc/page_token.h"
#include "server/rpc/served_model.h"
#include "trimtab/v1/model.grpc.pb.h"

namespace trimtab {

class ModelServiceImpl final : public v1::ModelService::CallbackService {
 public:
  // Both must outlive the gRPC server.
  ModelServiceImpl(const ModelDirectory& models, const PageTokenCodec& page_tokens)
      : models_(models), page_tokens_(page_tokens) {}

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest* request,
                                     v1::Model* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;

 private:
  const ModelDirectory& models_;
  const PageTokenCodec& page_tokens_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_MODEL_SERVICE_H_
