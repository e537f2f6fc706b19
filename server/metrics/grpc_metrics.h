// What the gRPC server tells Prometheus, under the names that public dashboards know. Made by Metrics.
#ifndef TRIMTAB_SERVER_METRICS_GRPC_METRICS_H_
#define TRIMTAB_SERVER_METRICS_GRPC_METRICS_H_

#include <array>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/metrics/families.h"
#include "server/rpc/rpc_metrics.h"

namespace trimtab {

// Thread-safe. A method's series come into being, all codes at 0, when it is added or first called; beyond 64 methods
// all count as "unknown".
class GrpcMetrics final : public RpcMetrics {
 public:
  explicit GrpcMetrics(const Families& families) : families_(families) {}

  // So that the series are there before the first call.
  void AddMethod(const RpcMethod& method);

  void OnRpcStarted(const RpcMethod& method) override;
  void OnRpcHandled(const RpcMethod& method, grpc::StatusCode code, absl::Duration duration) override;
  void OnRpcMessageReceived(const RpcMethod& method) override;
  void OnRpcMessageSent(const RpcMethod& method) override;

 private:
  static constexpr int kCodes = 17;
  struct Series {
    prometheus::Counter *started = nullptr, *received = nullptr, *sent = nullptr;
    std::array<prometheus::Counter*, kCodes> handled{};
    prometheus::Histogram* handling = nullptr;
  };

  Series Find(const RpcMethod& method);

  const Families& families_;
  absl::Mutex mutex_;
  std::map<std::string, Series> series_ ABSL_GUARDED_BY(mutex_);  // by "type service/method"
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_METRICS_GRPC_METRICS_H_
