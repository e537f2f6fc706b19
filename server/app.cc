#include "server/app.h"

#include <ATen/Parallel.h>
#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "models/loaded_model.h"
#include "server/app_metrics.h"
#include "server/base/clock.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/resource_name.h"
#include "server/base/status_macros.h"
#include "server/drift_runner.h"
#include "server/drift_suites.h"
#include "server/engine/engine.h"
#include "server/engine_model.h"
#include "server/fit_runner.h"
#include "server/jobs/device_gate.h"
#include "server/jobs/job_manager.h"
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

LoadOptions::Precision PrecisionOf(const std::string& name) {
  if (name == "float32") return LoadOptions::Precision::kFloat32;
  if (name == "bfloat16") return LoadOptions::Precision::kBFloat16;
  if (name == "file") return LoadOptions::Precision::kFile;
  return LoadOptions::Precision::kAuto;
}

EngineConfig EngineConfigOf(const ServerConfig& config) {
  EngineConfig engine;
  engine.kv_cache_bytes = config.kv_cache_mib << 20;
  engine.max_running_requests = config.max_running_requests;
  engine.max_waiting_requests = config.max_waiting_requests;
  engine.max_step_tokens = config.max_step_tokens;
  engine.max_step_time = config.max_step_time;
  engine.max_waiting_per_tenant = config.max_waiting_per_tenant;
  engine.max_running_per_tenant = config.max_running_per_tenant;
  engine.max_context = config.max_context;
  engine.prefix_caching = config.prefix_caching;
  engine.num_threads = config.engine_threads;
  return engine;
}

// What health checks call a model.
std::string HealthName(const std::string& model) { return absl::StrCat(kServices[0], "/", ModelName(model)); }

// Tokens that prompt and answer may have together.
int64_t ContextLength(const ServerConfig& config, const LoadedModel& model) {
  const int64_t own = model.model->spec().context_length;
  return config.max_context > 0 ? std::min(own, config.max_context) : own;
}

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
  // A model's engine has stopped: load balancers shall look elsewhere.
  void SetUnhealthy(const std::string& model);

  const ServerConfig config_;
  const RealClock clock_;
  VectorStore vectors_;
  AppMetrics metrics_{config_, vectors_, clock_};
  int metrics_port_ = 0;
  std::unique_ptr<SqliteRegistry> registry_;
  std::unique_ptr<PageTokenCodec> page_tokens_;
  std::unique_ptr<DriftSuites> suites_;
  MethodRegistry methods_;
  std::map<std::string, std::shared_ptr<const LoadedModel>, std::less<>> loaded_;
  std::vector<std::unique_ptr<Engine>> engines_;
  ModelDirectory models_;
  std::unique_ptr<ObjectivePublisher> publisher_;
  std::unique_ptr<DeviceGate> gate_;
  std::unique_ptr<JobManager> jobs_;
  std::unique_ptr<DriftRunner> drift_;
  std::unique_ptr<FitRunner> fit_;
  std::unique_ptr<Executor> prep_, egress_, storage_;
  CallEnvironment environment_;
  std::unique_ptr<GenerationServiceImpl> generation_;
  std::unique_ptr<ModelServiceImpl> model_service_;
  std::unique_ptr<ObjectiveServiceImpl> objectives_;
  std::unique_ptr<DriftServiceImpl> drift_service_;
  std::unique_ptr<OperationsServiceImpl> operations_;
  std::unique_ptr<GrpcServer> server_;
  std::atomic<GrpcServer*> serving_ = nullptr;  // between start and drain
  bool drained_ = false;
};

absl::Status App::Impl::Start() {
  TRIMTAB_RETURN_IF_ERROR(CheckConfig(config_));
  absl::StatusOr<DriftSuites> suites = DriftSuites::Load(config_.drift_suites, config_.neutral_text);
  if (!suites.ok()) return suites.status();
  suites_ = std::make_unique<DriftSuites>(*std::move(suites));
  TRIMTAB_RETURN_IF_ERROR(RegisterBuiltinMethods(methods_));
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
  for (const std::string& text : config_.models) {
    const ModelSource source = ParseModelSource(text);
    const absl::Time start = clock_.Now();
    absl::StatusOr<std::shared_ptr<const LoadedModel>> model =
        LoadModel(source.id, source.path, {.precision = PrecisionOf(config_.precision)});
    if (!model.ok()) return Annotate(model.status(), absl::StrCat("model ", source.path));
    const EngineConfig engine_config = EngineConfigOf(config_);
    const int64_t context_length = ContextLength(config_, **model);
    absl::StatusOr<std::unique_ptr<Engine>> engine =
        Engine::Create(*model, engine_config, clock_, &metrics_.AddModel(**model, engine_config, context_length));
    if (!engine.ok()) return Annotate(engine.status(), absl::StrCat("engine of ", source.id));
    engines_.push_back(*std::move(engine));
    models_.Add(std::make_shared<EngineModel>(*model, *engines_.back(), context_length, suites_->names(), clock_.Now(),
                                              [this, id = source.id] { SetUnhealthy(id); }));
    loaded_[source.id] = *std::move(model);
    TRIMTAB_RETURN_IF_ERROR(publisher_->PublishAll(ModelName(source.id)));
    LogInfo("model loaded", {{"model", source.id},
                             {"fingerprint", loaded_[source.id]->fingerprint},
                             {"seconds", absl::StrFormat("%.2f", absl::ToDoubleSeconds(clock_.Now() - start))}});
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
  gate_ = std::make_unique<DeviceGate>(
      [this] {
        return std::all_of(engines_.begin(), engines_.end(), [](const auto& engine) { return engine->idle(); });
      },
      DeviceGateConfig(), clock_);
  jobs_->set_gate([this] { gate_->Pass(); });
  const auto on_drift = [this](const v1::DriftReport& report) { metrics_.OnDrift(report); };
  drift_ = std::make_unique<DriftRunner>(DriftRunner::Parts{
      .models = models_,
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
                       .find_model = [this](std::string_view id) -> absl::StatusOr<std::shared_ptr<const LoadedModel>> {
                         const auto found = loaded_.find(id);
                         if (found == loaded_.end()) return NotFoundError(kModelNotFound, "model", ModelName(id));
                         return found->second;
                       },
                       .on_drift = on_drift});
  jobs_->Register(std::string(kFitJob), fit_->Runner());
  jobs_->Register(std::string(kDriftJob), drift_->Runner());
  return jobs_->Start();
}

absl::Status App::Impl::StartServices() {
  prep_ = std::make_unique<Executor>(2, kMaxWaitingCalls);
  egress_ = std::make_unique<Executor>(1, kMaxWaitingCalls);
  storage_ = std::make_unique<Executor>(2, kMaxWaitingCalls);
  environment_.models = &models_;
  environment_.vectors = &vectors_;
  environment_.clock = &clock_;
  environment_.prep = prep_.get();
  environment_.egress = egress_.get();
  environment_.metrics = &metrics_;
  environment_.id_prefix = absl::StrFormat("%08x", absl::Uniform<uint32_t>(absl::BitGen()));
  generation_ = std::make_unique<GenerationServiceImpl>(environment_);
  model_service_ = std::make_unique<ModelServiceImpl>(models_, *page_tokens_);
  objectives_ = std::make_unique<ObjectiveServiceImpl>(ObjectiveServiceImpl::Parts{
      models_, methods_, *registry_, *jobs_, *publisher_, *page_tokens_, *storage_, clock_});
  drift_service_ = std::make_unique<DriftServiceImpl>(
      DriftServiceImpl::Parts{models_, vectors_, *registry_, *jobs_, *page_tokens_, *storage_, clock_});
  operations_ = std::make_unique<OperationsServiceImpl>(
      OperationsServiceImpl::Parts{*registry_, *jobs_, *page_tokens_, *storage_, clock_});
  std::vector<std::string> health(std::begin(kServices), std::end(kServices));
  for (const auto& [id, model] : models_.models()) {
    health.push_back(HealthName(id));
  }
  TRIMTAB_ASSIGN_OR_RETURN(server_, GrpcServer::Start({.address = config_.address, .reflection = config_.reflection},
                                                      {generation_.get(), model_service_.get(), objectives_.get(),
                                                       drift_service_.get(), operations_.get()},
                                                      std::move(health), &metrics_.metrics().grpc(), clock_));
  server_->SetAllServing(true);
  serving_ = server_.get();
  return absl::OkStatus();
}

void App::Impl::SetUnhealthy(const std::string& model) {
  GrpcServer* const server = serving_;
  if (server != nullptr) server->SetServing(HealthName(model), false);
}

void App::Impl::Drain() {
  if (std::exchange(drained_, true)) return;
  if (server_ != nullptr) {
    serving_ = nullptr;
    server_->SetAllServing(false);
    metrics_.metrics().SetDraining(true);
    LogInfo("draining");
    absl::SleepFor(config_.drain_delay);
  }
  // Jobs stop at their next checkpoint while the engines still answer what they wait for.
  std::thread jobs([this] {
    if (jobs_ != nullptr) jobs_->Shutdown();
  });
  const absl::Time deadline = clock_.Now() + config_.drain_timeout;
  std::vector<std::thread> engines;
  for (const std::unique_ptr<Engine>& engine : engines_) {
    engines.emplace_back([&engine, deadline] { engine->Drain(deadline); });
  }
  for (std::thread& engine : engines) engine.join();
  jobs.join();
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
