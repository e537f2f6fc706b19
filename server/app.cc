#include "server/app.h"

#include <ATen/Parallel.h>
#include <google/protobuf/descriptor.h>

#include <iterator>
#include <thread>
#include <utility>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "server/app_metrics.h"
#include "server/base/available_memory.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/resource_name.h"
#include "server/base/status_macros.h"
#include "server/curve_runner.h"
#include "server/drift_runner.h"
#include "server/drift_suites.h"
#include "server/fit_runner.h"
#include "server/jobs/device_gate.h"
#include "server/jobs/job_manager.h"
#include "server/method_plugins.h"
#include "server/model_host.h"
#include "server/model_jobs.h"
#include "server/objective_publisher.h"
#include "server/registry/sqlite_registry.h"
#include "server/rpc/drift_service.h"
#include "server/rpc/executor.h"
#include "server/rpc/generation_service.h"
#include "server/rpc/grpc_server.h"
#include "server/rpc/model_service.h"
#include "server/rpc/objective_service.h"
#include "server/rpc/operations_service.h"
#include "server/rpc/to_proto.h"
#include "steering/method_registry.h"

namespace trimtab {
namespace {

// Calls that wait for these pools, beyond which they are refused.
constexpr size_t kMaxWaitingCalls = 1024;
constexpr const char* kServices[] = {"trimtab.v1.GenerationService", "trimtab.v1.ModelService",
                                     "trimtab.v1.ObjectiveService", "trimtab.v1.DriftService",
                                     "google.longrunning.Operations"};

absl::Status Annotate(const absl::Status& status, const std::string& part) {
  absl::Status annotated(status.code(), absl::StrCat(part, ": ", status.message()));
  return annotated;
}

// What health checks call a model.
std::string HealthName(const std::string& model) { return absl::StrCat(kServices[0], "/", ModelName(model)); }

}  // namespace

// Members are made in this order and destroyed in reverse: what a part uses stands above it.
class App::Impl {
 public:
  explicit Impl(const ServerConfig& config) : config_(config) {}
  ~Impl() { Drain(); }

  absl::Status Start();
  void Drain();
  int port() const { return server_->port(); }
  int metrics_port() const { return metrics_port_; }

 private:
  absl::Status StartMetrics();
  absl::Status OpenRegistry();
  absl::Status LoadModels();
  absl::Status StartJobs();
  absl::Status StartServices();
  // What load balancers are told of a model.
  void SetHealth(const std::string& model, bool serving) ABSL_LOCKS_EXCLUDED(health_mutex_);

  const ServerConfig config_;
  const RealClock clock_;
  VectorStore vectors_;
  AppMetrics metrics_{config_, vectors_, clock_};
  int metrics_port_ = 0;
  std::unique_ptr<SqliteRegistry> registry_;
  std::unique_ptr<PageTokenCodec> page_tokens_;
  std::unique_ptr<DriftSuites> suites_;
  MethodRegistry methods_;
  std::unique_ptr<ObjectivePublisher> publisher_;
  std::unique_ptr<ModelHost> host_;
  std::unique_ptr<DeviceGate> gate_;
  std::unique_ptr<JobManager> jobs_;
  std::unique_ptr<DriftRunner> drift_;
  std::unique_ptr<FitRunner> fit_;
  std::unique_ptr<CurveRunner> curve_;
  std::unique_ptr<ModelJobs> model_jobs_;
  std::unique_ptr<Executor> prep_, egress_, storage_;
  CallEnvironment environment_;
  std::unique_ptr<GenerationServiceImpl> generation_;
  std::unique_ptr<ModelServiceImpl> model_service_;
  std::unique_ptr<ObjectiveServiceImpl> objectives_;
  std::unique_ptr<DriftServiceImpl> drift_service_;
  std::unique_ptr<OperationsServiceImpl> operations_;
  std::unique_ptr<GrpcServer> server_;
  absl::Mutex health_mutex_;
  GrpcServer* health_ ABSL_GUARDED_BY(health_mutex_) = nullptr;  // while there is one to tell
  bool drained_ = false;
};

absl::Status App::Impl::Start() {
  TRIMTAB_RETURN_IF_ERROR(CheckConfig(config_));
  absl::StatusOr<DriftSuites> suites = DriftSuites::Load(config_.drift_suites, config_.neutral_text);
  if (!suites.ok()) return suites.status();
  suites_ = std::make_unique<DriftSuites>(*std::move(suites));
  TRIMTAB_RETURN_IF_ERROR(RegisterBuiltinMethods(methods_));
  TRIMTAB_RETURN_IF_ERROR(LoadMethodPlugins(config_.method_plugins, methods_));
  TRIMTAB_RETURN_IF_ERROR(StartMetrics());
  TRIMTAB_RETURN_IF_ERROR(OpenRegistry());
  TRIMTAB_RETURN_IF_ERROR(LoadModels());
  TRIMTAB_RETURN_IF_ERROR(StartJobs());
  return StartServices();
}

absl::Status App::Impl::StartMetrics() {
  for (const char* const name : kServices) {
    const auto* const service = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
    for (int i = 0; i < service->method_count(); ++i) {
      metrics_.metrics().grpc().AddMethod({.type = service->method(i)->server_streaming() ? "server_stream" : "unary",
                                           .service = name,
                                           .method = service->method(i)->name()});
    }
  }
  if (config_.metrics_address.empty()) return absl::OkStatus();
  TRIMTAB_ASSIGN_OR_RETURN(metrics_port_, metrics_.metrics().Expose(config_.metrics_address));
  return absl::OkStatus();
}

absl::Status App::Impl::OpenRegistry() {
  absl::StatusOr<std::unique_ptr<SqliteRegistry>> registry =
      SqliteRegistry::Open(config_.registry, clock_, &metrics_.metrics());
  if (!registry.ok()) return Annotate(registry.status(), absl::StrCat("registry ", config_.registry));
  registry_ = *std::move(registry);
  page_tokens_ = std::make_unique<PageTokenCodec>(registry_->secret());
  metrics_.metrics().SetRegistryRevision(registry_->revision());
  publisher_ = std::make_unique<ObjectivePublisher>(
      *registry_, vectors_, [this](const std::string& name, const ServedObjective* objective, double effect) {
        metrics_.OnPublished(name, objective, effect);
      });
  return absl::OkStatus();
}

absl::Status App::Impl::LoadModels() {
  host_ = std::make_unique<ModelHost>(
      ModelHost::Parts{.config = config_,
                       .clock = clock_,
                       .metrics = metrics_,
                       .publisher = *publisher_,
                       .drift_suites = suites_->names(),
                       .available_memory = [] { return AvailableMemory(); },
                       .on_health = [this](const std::string& id, bool serving) { SetHealth(id, serving); }});
  for (const std::string& text : config_.models) {
    const ModelSource source = ParseModelSource(text);
    const absl::Status status =
        host_->Load(host_->PlanConfigured(source), /*admit=*/false, [](JobPhase) { return absl::OkStatus(); }).status();
    if (!status.ok()) return Annotate(status, absl::StrCat("model ", source.path));
  }
  return absl::OkStatus();
}

absl::Status App::Impl::StartJobs() {
  const int threads = config_.job_threads;
  jobs_ = std::make_unique<JobManager>(*registry_,
                                       JobManagerConfig{.max_queued = config_.max_queued_jobs,
                                                        .idle_priority = config_.idle_jobs,
                                                        .threads_per_job = threads,
                                                        .on_worker_start =
                                                            [threads] {
                                                              if (threads > 0) at::set_num_threads(threads);
                                                            }},
                                       clock_, &metrics_.metrics());
  gate_ = std::make_unique<DeviceGate>([this] { return host_->idle(); }, DeviceGateConfig(), clock_);
  jobs_->set_gate([this] { gate_->Pass(); });
  const auto on_drift = [this](const v1::DriftReport& report) { metrics_.OnDrift(report); };
  drift_ = std::make_unique<DriftRunner>(DriftRunner::Parts{
      .models = host_->directory(),
      .vectors = vectors_,
      .suites = *suites_,
      .registry = *registry_,
      .jobs = *jobs_,
      .clock = clock_,
      .on_drift = on_drift,
      .on_error = [this](const v1::EvaluateDriftRequest& request) { metrics_.OnDriftError(request); }});
  fit_ = std::make_unique<FitRunner>(
      FitRunner::Parts{.registry = *registry_,
                       .methods = methods_,
                       .publisher = *publisher_,
                       .suites = *suites_,
                       .drift = *drift_,
                       .jobs = *jobs_,
                       .clock = clock_,
                       .find_model = [this](std::string_view id) { return host_->FindLoaded(id); },
                       .on_drift = on_drift});
  curve_ = std::make_unique<CurveRunner>(
      CurveRunner::Parts{.registry = *registry_,
                         .methods = methods_,
                         .models = host_->directory(),
                         .suites = *suites_,
                         .jobs = *jobs_,
                         .clock = clock_,
                         .find_model = [this](std::string_view id) { return host_->FindLoaded(id); }});
  jobs_->Register(std::string(kCurveJob), curve_->Runner());
  jobs_->Register(std::string(kFitJob), fit_->Runner());
  jobs_->Register(std::string(kRefitJob), fit_->Runner());
  jobs_->Register(std::string(kDriftJob), drift_->Runner());
  model_jobs_ = std::make_unique<ModelJobs>(ModelJobs::Parts{.registry = *registry_,
                                                             .host = *host_,
                                                             .publisher = *publisher_,
                                                             .jobs = *jobs_,
                                                             .clock = clock_,
                                                             .drain_timeout = config_.drain_timeout});
  model_jobs_->Register();
  TRIMTAB_RETURN_IF_ERROR(model_jobs_->Restore());
  return jobs_->Start();
}

absl::Status App::Impl::StartServices() {
  prep_ = std::make_unique<Executor>(2, kMaxWaitingCalls);
  egress_ = std::make_unique<Executor>(1, kMaxWaitingCalls);
  storage_ = std::make_unique<Executor>(2, kMaxWaitingCalls);
  environment_.models = &host_->directory();
  environment_.vectors = &vectors_;
  environment_.clock = &clock_;
  environment_.prep = prep_.get();
  environment_.egress = egress_.get();
  environment_.metrics = &metrics_;
  environment_.id_prefix = absl::StrFormat("%08x", absl::Uniform<uint32_t>(absl::BitGen()));
  generation_ = std::make_unique<GenerationServiceImpl>(environment_);
  model_service_ = std::make_unique<ModelServiceImpl>(
      ModelServiceImpl::Parts{host_->directory(), *host_, *registry_, *jobs_, *page_tokens_, *storage_, clock_});
  objectives_ = std::make_unique<ObjectiveServiceImpl>(ObjectiveServiceImpl::Parts{
      host_->directory(), methods_, *registry_, *jobs_, *publisher_, *page_tokens_, *storage_, clock_,
      [this](const std::string& model, const std::string& method, const google::protobuf::Any* config,
             const PairSet& pairs) {
        return fit_->Preview(model, method, config, {.pairs = pairs.pairs, .held_out_pairs = pairs.held_out});
      }});
  drift_service_ = std::make_unique<DriftServiceImpl>(
      DriftServiceImpl::Parts{host_->directory(), vectors_, *registry_, *jobs_, *page_tokens_, *storage_, clock_});
  operations_ = std::make_unique<OperationsServiceImpl>(
      OperationsServiceImpl::Parts{*registry_, *jobs_, *page_tokens_, *storage_, clock_});
  std::vector<std::string> health(std::begin(kServices), std::end(kServices));
  TRIMTAB_ASSIGN_OR_RETURN(server_, GrpcServer::Start({.address = config_.address, .reflection = config_.reflection},
                                                      {generation_.get(), model_service_.get(), objectives_.get(),
                                                       drift_service_.get(), operations_.get()},
                                                      std::move(health), &metrics_.metrics().grpc(), clock_));
  server_->SetAllServing(true);
  {
    absl::MutexLock lock(&health_mutex_);
    health_ = server_.get();
  }
  // Those that were loaded before there was anybody to tell. One that begins to leave right now is told of again.
  const std::shared_ptr<const ModelDirectory::Entries> models = host_->directory().snapshot();
  for (const auto& [id, entry] : *models) SetHealth(id, entry.model != nullptr);
  return absl::OkStatus();
}

void App::Impl::SetHealth(const std::string& model, bool serving) {
  absl::MutexLock lock(&health_mutex_);
  if (health_ != nullptr) health_->SetServing(HealthName(model), serving);
}

void App::Impl::Drain() {
  if (std::exchange(drained_, true)) return;
  if (server_ != nullptr) {
    server_->StopServing();
    metrics_.metrics().SetDraining(true);
    LogInfo("draining");
    absl::SleepFor(config_.drain_delay);
  }
  // Jobs stop at their next checkpoint while the engines still answer what they wait for.
  std::thread jobs([this] {
    if (jobs_ != nullptr) jobs_->Shutdown();
  });
  const absl::Time deadline = clock_.Now() + config_.drain_timeout;
  if (host_ != nullptr) host_->DrainAll(deadline);
  jobs.join();
  {
    absl::MutexLock lock(&health_mutex_);
    health_ = nullptr;
  }
  if (server_ != nullptr) server_->Shutdown(clock_.Now() + config_.shutdown_timeout);
}

App::App(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
App::~App() = default;

absl::StatusOr<std::unique_ptr<App>> App::Start(const ServerConfig& config) {
  auto impl = std::make_unique<Impl>(config);
  TRIMTAB_RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<App>(new App(std::move(impl)));
}

int App::port() const { return impl_->port(); }
int App::metrics_port() const { return impl_->metrics_port(); }
void App::Drain() { impl_->Drain(); }

}  // namespace trimtab
