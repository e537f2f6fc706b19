// The listening gRPC server: options of operations.md section 2, health per service and per model, reflection.
// Main thread unless said.
#ifndef TRIMTAB_SERVER_RPC_GRPC_SERVER_H_
#define TRIMTAB_SERVER_RPC_GRPC_SERVER_H_

#include <grpcpp/server.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/rpc/rpc_metrics.h"

namespace trimtab {

struct GrpcServerOptions {
  std::string address = "127.0.0.1:0";  // host:port; port 0 picks a free one
  bool reflection = false;
  int max_concurrent_streams = 256;  // per connection
  int max_receive_bytes = 8 << 20;
};

class GrpcServer {
 public:
  // Listens with `services`, which must outlive the server. Health answers NOT_SERVING for `health_names` until they
  // are set otherwise, and SERVING for "" (the process as a whole) until Shutdown. `metrics` may be null. UNAVAILABLE
  // when the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options,
                                                           const std::vector<grpc::Service*>& services,
                                                           std::vector<std::string> health_names, RpcMetrics* metrics,
                                                           const Clock& clock);
  // Shuts down at once if Shutdown was not called.
  ~GrpcServer();

  int port() const { return port_; }
  // What the health service answers for one name, which is a health name from then on, or for all of them. Any thread.
  void SetServing(const std::string& name, bool serving) ABSL_LOCKS_EXCLUDED(mutex_);
  void SetAllServing(bool serving) ABSL_LOCKS_EXCLUDED(mutex_);
  // NOT_SERVING for all names, and for whatever is set later: the server drains.
  void StopServing() ABSL_LOCKS_EXCLUDED(mutex_);
  // For calls from within the process.
  std::shared_ptr<grpc::Channel> InProcessChannel(const grpc::ChannelArguments& arguments);
  // Refuses new calls at once and cancels what still runs at `deadline`. Blocks until all calls have ended.
  void Shutdown(absl::Time deadline);

 private:
  GrpcServer(std::unique_ptr<grpc::Server> server, int port, const std::vector<std::string>& health_names);
  void Set(const std::string& name, bool serving) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::unique_ptr<grpc::Server> server_;
  int port_;
  absl::Mutex mutex_;
  std::set<std::string> health_names_ ABSL_GUARDED_BY(mutex_);
  bool stopped_serving_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_GRPC_SERVER_H_
