// What the gRPC server tells about its calls, and the interceptor that watches them. Declared here so that rpc does not
// depend on Prometheus; server/metrics implements it. gRPC's threads: cheap, non-blocking.
#ifndef TRIMTAB_SERVER_RPC_RPC_METRICS_H_
#define TRIMTAB_SERVER_RPC_RPC_METRICS_H_

#include <grpcpp/support/server_interceptor.h>
#include <grpcpp/support/status.h>

#include <string>

#include "absl/time/time.h"
#include "server/base/clock.h"

namespace trimtab {

// The labels of the de-facto grpc_server_* metrics. Only methods that the server has come up.
struct RpcMethod {
  std::string type;     // "unary", "client_stream", "server_stream" or "bidi_stream"
  std::string service;  // "trimtab.v1.GenerationService"
  std::string method;   // "Generate"
};

class RpcMetrics {
 public:
  virtual ~RpcMetrics() = default;
  virtual void OnRpcStarted(const RpcMethod& method) = 0;
  virtual void OnRpcHandled(const RpcMethod& method, grpc::StatusCode code, absl::Duration duration) = 0;
  virtual void OnRpcMessageReceived(const RpcMethod& method) = 0;
  virtual void OnRpcMessageSent(const RpcMethod& method) = 0;
};

// Makes an interceptor per call. Both arguments must outlive the gRPC server.
class RpcMetricsInterceptorFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  RpcMetricsInterceptorFactory(RpcMetrics& metrics, const Clock& clock) : metrics_(metrics), clock_(clock) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override;

 private:
  RpcMetrics& metrics_;
  const Clock& clock_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_RPC_METRICS_H_
