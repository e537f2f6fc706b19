#include "server/rpc/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace trimtab {
namespace {

// Both switches are global and read when a server is built; the reflection plugin is added to every later server, so it
// is decided once per process.
void EnablePlugins(bool reflection) {
  grpc::EnableDefaultHealthCheckService(true);
  if (!reflection) return;
  static const bool once = [] {
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    return true;
  }();
  (void)once;
}

void SetLimits(const GrpcServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(options.max_receive_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Clients may ping every 10 s; dead ones are noticed within 80 s.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 2);
  // Lets balanced clients spread again; the grace is longer than any stream.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, 30 * 60'000);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, 15 * 60'000);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              const std::vector<grpc::Service*>& services,
                                                              std::vector<std::string> health_names,
                                                              RpcMetrics* metrics, const Clock& clock) {
  EnablePlugins(options.reflection);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options.address, grpc::InsecureServerCredentials(), &port);
  for (grpc::Service* const service : services) builder.RegisterService(service);
  SetLimits(options, builder);
  if (metrics != nullptr) {
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> creators;
    creators.push_back(std::make_unique<RpcMetricsInterceptorFactory>(*metrics, clock));
    builder.experimental().SetInterceptorCreators(std::move(creators));
  }
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", options.address, ": is the port in use?"));
  }
  std::unique_ptr<GrpcServer> result(new GrpcServer(std::move(server), port, health_names));
  result->SetAllServing(false);
  return result;
}

GrpcServer::GrpcServer(std::unique_ptr<grpc::Server> server, int port, const std::vector<std::string>& health_names)
    : server_(std::move(server)), port_(port), health_names_(health_names.begin(), health_names.end()) {}

GrpcServer::~GrpcServer() { Shutdown(absl::InfinitePast()); }

void GrpcServer::Set(const std::string& name, bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(name, serving && !stopped_serving_);
}

void GrpcServer::SetServing(const std::string& name, bool serving) {
  absl::MutexLock lock(&mutex_);
  health_names_.insert(name);
  Set(name, serving);
}

void GrpcServer::SetAllServing(bool serving) {
  absl::MutexLock lock(&mutex_);
  for (const std::string& name : health_names_) Set(name, serving);
}

void GrpcServer::StopServing() {
  {
    absl::MutexLock lock(&mutex_);
    stopped_serving_ = true;
  }
  SetAllServing(false);
}

std::shared_ptr<grpc::Channel> GrpcServer::InProcessChannel(const grpc::ChannelArguments& arguments) {
  return server_->InProcessChannel(arguments);
}

void GrpcServer::Shutdown(absl::Time deadline) {
  if (server_ == nullptr) return;
  server_->GetHealthCheckService()->Shutdown();
  // Calls that are still running get a moment to notice their cancellation.
  server_->Shutdown(absl::ToChronoTime(std::max(deadline, absl::Now())));
  server_->Wait();
  server_.reset();
}

}  // namespace trimtab
