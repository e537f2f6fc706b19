#include "server/rpc/model_service.h"

#include "server/base/status_macros.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/validate.h"

namespace trimtab {
namespace {

grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* ModelServiceImpl::GetModel(grpc::CallbackServerContext* context,
                                                     const v1::GetModelRequest* request, v1::Model* response) {
  return FinishNow(context, [&]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const std::string id, ParseGetModelRequest(*request));
    TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<ServedModel> model, models_.Find(id));
    *response = model->Describe();
    return absl::OkStatus();
  }());
}

grpc::ServerUnaryReactor* ModelServiceImpl::ListModels(grpc::CallbackServerContext* context,
                                                       const v1::ListModelsRequest* request,
                                                       v1::ListModelsResponse* response) {
  return FinishNow(context, [&]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const ListCall call, ParseListModelsRequest(*request, page_tokens_));
    for (auto it = models_.models().upper_bound(call.page.after); it != models_.models().end(); ++it) {
      if (response->models_size() == call.page.size) {
        response->set_next_page_token(page_tokens_.Encode(call.scope, std::prev(it)->first));
        break;
      }
      *response->add_models() = it->second->Describe();
    }
    return absl::OkStatus();
  }());
}

}  // namespace trimtab
