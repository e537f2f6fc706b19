// A real gRPC server on a free port with a client channel, and the fields that errors carry.
#ifndef TRIMTAB_TESTS_SERVER_RPC_TEST_SERVER_H_
#define TRIMTAB_TESTS_SERVER_RPC_TEST_SERVER_H_

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/rpc/grpc_server.h"
#include "server/rpc/grpc_status.h"

namespace trimtab {

struct TestServer {
  explicit TestServer(const std::vector<grpc::Service*>& services, RpcMetrics* metrics = nullptr,
                      std::vector<std::string> health_names = {}, GrpcServerOptions options = {}) {
    auto started = GrpcServer::Start(options, services, std::move(health_names), metrics, clock);
    EXPECT_TRUE(started.ok()) << started.status();
    server = *std::move(started);
    channel = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server->port()), grpc::InsecureChannelCredentials());
  }

  RealClock clock;
  std::unique_ptr<GrpcServer> server;
  std::shared_ptr<grpc::Channel> channel;
};

inline std::string Reason(const grpc::Status& status) { return GetErrorDetail(FromGrpcStatus(status)).reason; }

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_RPC_TEST_SERVER_H_
