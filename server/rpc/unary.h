// Unary methods whose work may block: off the gRPC reaction, onto an executor.
#ifndef TRIMTAB_SERVER_RPC_UNARY_H_
#define TRIMTAB_SERVER_RPC_UNARY_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <utility>

#include "absl/status/status.h"
#include "server/rpc/executor.h"
#include "server/rpc/grpc_status.h"

namespace trimtab {

// Finishes the call with what `handler` (absl::Status()) returns on `executor`. Request and response stay valid until
// then. A call that is cancelled meanwhile still runs to its end: these are short.
template <typename Handler>
grpc::ServerUnaryReactor* RunUnary(Executor& executor, grpc::CallbackServerContext* context, Handler handler) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const absl::Status posted =
      executor.Post([reactor, handler = std::move(handler)] { reactor->Finish(ToGrpcStatus(handler())); });
  if (!posted.ok()) reactor->Finish(ToGrpcStatus(posted));
  return reactor;
}

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_UNARY_H_
