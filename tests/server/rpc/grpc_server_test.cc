#include "server/rpc/grpc_server.h"

#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/server/rpc/test_server.h"
#include "trimtab/v1/model.grpc.pb.h"

namespace trimtab {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// Lists nothing and refuses to get anything.
class EmptyService final : public v1::ModelService::CallbackService {
 public:
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const v1::ListModelsRequest*,
                                       v1::ListModelsResponse*) override {
    return FinishNow(context, grpc::Status::OK);
  }
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest*,
                                     v1::Model*) override {
    return FinishNow(context, grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no name"));
  }

 private:
  static grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context, const grpc::Status& status) {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(status);
    return reactor;
  }
};

class GrpcServerTest : public ::testing::Test {
 protected:
  EmptyService service_;
};

TEST_F(GrpcServerTest, HealthFollowsEachNameUntilShutdown) {
  const std::string generation = "trimtab.v1.GenerationService", model = generation + "/models/a";
  TestServer server({&service_}, nullptr, {generation, model});
  const auto stub = Health::NewStub(server.channel);
  const auto check = [&](const std::string& name) {
    grpc::ClientContext context;
    HealthCheckRequest request;
    request.set_service(name);
    HealthCheckResponse response;
    const grpc::Status status = stub->Check(&context, request, &response);
    return status.ok() ? static_cast<int>(response.status()) : -static_cast<int>(status.error_code());
  };
  EXPECT_EQ(check(""), HealthCheckResponse::SERVING);
  EXPECT_EQ(check(generation), HealthCheckResponse::NOT_SERVING);
  server.server->SetAllServing(true);
  EXPECT_EQ(check(generation), HealthCheckResponse::SERVING);
  EXPECT_EQ(check(model), HealthCheckResponse::SERVING);
  server.server->SetServing(model, false);
  EXPECT_EQ(check(generation), HealthCheckResponse::SERVING);
  EXPECT_EQ(check(model), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(check("unknown"), -grpc::StatusCode::NOT_FOUND);

  // Watch sees the change that the end of serving makes.
  grpc::ClientContext context;
  HealthCheckRequest request;
  request.set_service(generation);
  auto watch = stub->Watch(&context, request);
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  server.server->SetAllServing(false);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  context.TryCancel();
  watch->Finish();

  // A name that comes later is one of all from then on, until serving ends for good.
  const std::string late = generation + "/models/late";
  server.server->SetServing(late, true);
  EXPECT_EQ(check(late), HealthCheckResponse::SERVING);
  server.server->SetAllServing(true);
  server.server->StopServing();
  EXPECT_EQ(check(late), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(check(generation), HealthCheckResponse::NOT_SERVING);
  server.server->SetServing(late, true);
  EXPECT_EQ(check(late), HealthCheckResponse::NOT_SERVING);
}

TEST_F(GrpcServerTest, APortInUseIsAnError) {
  TestServer first({&service_});
  const auto second = GrpcServer::Start({.address = absl::StrCat("127.0.0.1:", first.server->port())}, {&service_}, {},
                                        nullptr, first.clock);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(GrpcServerTest, ShutdownRefusesNewCalls) {
  TestServer server({&service_});
  const auto stub = v1::ModelService::NewStub(server.channel);
  v1::ListModelsResponse response;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub->ListModels(&context, {}, &response).ok());
  }
  server.server->Shutdown(absl::InfiniteFuture());
  grpc::ClientContext context;
  EXPECT_EQ(stub->ListModels(&context, {}, &response).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GrpcServerTest, RequestsAreBoundedInSize) {
  TestServer server({&service_}, nullptr, {}, {.max_receive_bytes = 1000});
  const auto stub = v1::ModelService::NewStub(server.channel);
  v1::ListModelsRequest request;
  request.set_page_token(std::string(2000, 'x'));
  v1::ListModelsResponse response;
  grpc::ClientContext context;
  EXPECT_EQ(stub->ListModels(&context, request, &response).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

class RecordedMetrics final : public RpcMetrics {
 public:
  void OnRpcStarted(const RpcMethod& method) override {
    absl::MutexLock lock(&mutex);
    started.push_back(method.type + " " + method.service + " " + method.method);
  }
  void OnRpcHandled(const RpcMethod& method, grpc::StatusCode code, absl::Duration duration) override {
    absl::MutexLock lock(&mutex);
    EXPECT_GE(duration, absl::ZeroDuration());
    handled.push_back(method.method + " " + std::to_string(code));
  }
  void OnRpcMessageReceived(const RpcMethod&) override {
    absl::MutexLock lock(&mutex);
    ++received;
  }
  void OnRpcMessageSent(const RpcMethod&) override {
    absl::MutexLock lock(&mutex);
    ++sent;
  }

  absl::Mutex mutex;
  std::vector<std::string> started, handled;
  int received = 0, sent = 0;
};

TEST_F(GrpcServerTest, MetricsSeeEveryCall) {
  RecordedMetrics metrics;
  TestServer server({&service_}, &metrics);
  const auto stub = v1::ModelService::NewStub(server.channel);
  v1::ListModelsResponse list;
  grpc::ClientContext first;
  ASSERT_TRUE(stub->ListModels(&first, {}, &list).ok());
  v1::Model model;
  grpc::ClientContext second;
  ASSERT_FALSE(stub->GetModel(&second, {}, &model).ok());
  server.server->Shutdown(absl::InfiniteFuture());
  absl::MutexLock lock(&metrics.mutex);
  EXPECT_EQ(metrics.started, (std::vector<std::string>{"unary trimtab.v1.ModelService ListModels",
                                                       "unary trimtab.v1.ModelService GetModel"}));
  EXPECT_EQ(metrics.handled, (std::vector<std::string>{"ListModels 0", "GetModel 3"}));
  EXPECT_EQ(metrics.received, 2);
  EXPECT_EQ(metrics.sent, 1);
}

}  // namespace
}  // namespace trimtab
