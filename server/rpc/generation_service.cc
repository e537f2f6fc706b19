#include "server/rpc/generation_service.h"

#include <memory>
#include <vector>

#include "server/base/status_macros.h"
#include "server/rpc/generate_reactor.h"
#include "server/rpc/score_reactor.h"
#include "server/rpc/unary.h"
#include "server/rpc/validate.h"

namespace trimtab {

grpc::ServerUnaryReactor* GenerationServiceImpl::Generate(grpc::CallbackServerContext* context,
                                                          const v1::GenerateRequest* request,
                                                          v1::GenerateResponse* response) {
  return UnaryGenerateReactor::Start(environment_, context, request, response);
}

grpc::ServerWriteReactor<v1::GenerateResponse>* GenerationServiceImpl::StreamGenerate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  return StreamGenerateReactor::Start(environment_, context, request);
}

grpc::ServerUnaryReactor* GenerationServiceImpl::Score(grpc::CallbackServerContext* context,
                                                       const v1::ScoreRequest* request, v1::ScoreResponse* response) {
  return ScoreReactor::Start(environment_, context, request, response);
}

grpc::ServerUnaryReactor* GenerationServiceImpl::CountTokens(grpc::CallbackServerContext* context,
                                                             const v1::CountTokensRequest* request,
                                                             v1::CountTokensResponse* response) {
  return RunUnary(*environment_.prep, context, [this, request, response]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const CountTokensCall call, ParseCountTokensRequest(*request));
    TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<ServedModel> model, environment_.models->Find(call.model));
    TRIMTAB_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, model->Encode(call.input));
    response->set_total_tokens(static_cast<int32_t>(tokens.size()));
    response->set_context_length(model->Describe().context_length());
    if (request->include_token_ids()) response->mutable_token_ids()->Add(tokens.begin(), tokens.end());
    return absl::OkStatus();
  });
}

}  // namespace trimtab
