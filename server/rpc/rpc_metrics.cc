#include "server/rpc/rpc_metrics.h"

#include <string_view>
#include <utility>

namespace trimtab {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::ServerRpcInfo;

RpcMethod MethodOf(const ServerRpcInfo& info) {
  RpcMethod method;
  switch (info.type()) {
    case ServerRpcInfo::Type::UNARY:
      method.type = "unary";
      break;
    case ServerRpcInfo::Type::CLIENT_STREAMING:
      method.type = "client_stream";
      break;
    case ServerRpcInfo::Type::SERVER_STREAMING:
      method.type = "server_stream";
      break;
    case ServerRpcInfo::Type::BIDI_STREAMING:
      method.type = "bidi_stream";
      break;
  }
  // "/package.Service/Method"
  const std::string_view path(info.method());
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos || slash == 0) {
    method.service = method.method = "unknown";
  } else {
    method.service = std::string(path.substr(1, slash - 1));
    method.method = std::string(path.substr(slash + 1));
  }
  return method;
}

class MetricsInterceptor final : public grpc::experimental::Interceptor {
 public:
  MetricsInterceptor(RpcMetrics& metrics, const Clock& clock, RpcMethod method)
      : metrics_(metrics), clock_(clock), method_(std::move(method)), start_(clock.Now()) {
    metrics_.OnRpcStarted(method_);
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_MESSAGE) &&
        batch->GetRecvMessage() != nullptr) {
      metrics_.OnRpcMessageReceived(method_);
    }
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_MESSAGE)) metrics_.OnRpcMessageSent(method_);
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      metrics_.OnRpcHandled(method_, batch->GetSendStatus().error_code(), clock_.Now() - start_);
    }
    batch->Proceed();
  }

 private:
  RpcMetrics& metrics_;
  const Clock& clock_;
  const RpcMethod method_;
  const absl::Time start_;
};

}  // namespace

grpc::experimental::Interceptor* RpcMetricsInterceptorFactory::CreateServerInterceptor(ServerRpcInfo* info) {
  return new MetricsInterceptor(metrics_, clock_, MethodOf(*info));
}

}  // namespace trimtab
