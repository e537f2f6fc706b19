// All services on one real gRPC server over a real registry and job manager; only the model and the fit are scripted.
#ifndef TRIMTAB_TESTS_SERVER_RPC_SERVICES_FIXTURE_H_
#define TRIMTAB_TESTS_SERVER_RPC_SERVICES_FIXTURE_H_

#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "server/drift_runner.h"
#include "server/objective_publisher.h"
#include "server/registry/sqlite_registry.h"
#include "server/rpc/drift_service.h"
#include "server/rpc/generation_service.h"
#include "server/rpc/objective_service.h"
#include "server/rpc/operations_service.h"
#include "server/rpc/to_proto.h"
#include "tests/server/rpc/fake_model.h"
#include "tests/server/rpc/test_server.h"
#include "trimtab/methods/v1/grains.pb.h"

namespace trimtab {

inline std::shared_ptr<const SteeringVector> TestVector(const std::string& fingerprint, float first = 0.6f) {
  SteeringVectorSpec spec;
  spec.model_fingerprint = fingerprint;
  spec.method = "scripted";
  spec.default_strength = 0.05f;
  spec.max_strength = 0.3f;
  spec.hidden_size = 2;
  spec.layers = {{.layer = 1, .direction = {first, std::sqrt(1 - first * first)}}};
  auto vector = SteeringVector::Create(std::move(spec));
  EXPECT_TRUE(vector.ok()) << vector.status();
  return *vector;
}

// A fit that waits until a test lets it go, and ends as the test says.
class ScriptedFit {
 public:
  ScriptedFit(Registry& registry, ObjectivePublisher& publisher) : registry_(registry), publisher_(publisher) {}

  // Until Release, fits wait (and still can be cancelled).
  void Hold() {
    absl::MutexLock lock(&mutex_);
    held_ = true;
  }
  void Release(absl::Status outcome = absl::OkStatus()) {
    absl::MutexLock lock(&mutex_);
    held_ = false;
    outcome_ = std::move(outcome);
  }
  void WaitForRunning() {
    absl::MutexLock lock(&mutex_);
    const auto running = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return running_; };
    mutex_.Await(absl::Condition(&running));
  }

  JobManager::Runner AsRunner() {
    return {.run = [this](const JobRecord& job, JobContext& context) { return Run(job, context); },
            .fail = [this](const JobRecord& job, const absl::Status& error) { return Fail(job, error); },
            .metadata =
                [](const JobRecord& job, const JobProgressSnapshot& progress) {
                  v1::RegisterObjectiveMetadata metadata;
                  metadata.set_objective(job.target);
                  metadata.set_phase(static_cast<v1::RegisterObjectiveMetadata::Phase>(progress.progress.phase));
                  metadata.set_completed_percent(static_cast<float>(100 * progress.progress.fraction));
                  return metadata.SerializeAsString();
                }};
  }
  // A further revision, as a refit would add it.
  absl::Status AddRevision(const std::string& objective, const std::string& operation, const std::string& fingerprint,
                           float first) {
    auto record = registry_.GetObjective(objective);
    if (!record.ok()) return record.status();
    JobRecord job{.name = operation, .kind = std::string(kFitJob), .target = objective};
    job.create_time = job.update_time = absl::Now();
    if (auto created = registry_.CreateJob(job); !created.ok()) return created.status();
    return Commit(*record, job, *TestVector(fingerprint, first));
  }

 private:
  absl::Status Run(const JobRecord& job, JobContext& context) {
    context.Report({.phase = JobPhase::kAttributing, .completed = 1, .total = 4, .fraction = 0.25});
    {
      absl::MutexLock lock(&mutex_);
      running_ = true;
    }
    absl::Status outcome;
    for (bool held = true; held;) {
      if (absl::Status go_on = context.Checkpoint(); !go_on.ok()) return go_on;
      absl::MutexLock lock(&mutex_);
      held = held_;
      outcome = outcome_;
      std::this_thread::yield();
    }
    if (!outcome.ok()) return outcome;
    auto objective = registry_.GetObjective(job.target);
    if (!objective.ok()) return objective.status();
    if (job.kind != kRefitJob) return Commit(*objective, job, *TestVector(objective->model_fingerprint));
    v1::RefitObjectiveRequest request;
    EXPECT_TRUE(request.ParseFromString(job.request));
    EXPECT_EQ(request.pairs_size(), 0) << "pairs are kept apart";
    auto pairs = context.LoadPartial(Registry::kRefitPairs);
    if (!pairs.ok()) return pairs.status();
    RefitRecord refit{.keep_active = request.keep_active(), .pairs = pairs->value_or("")};
    v1::Objective kept;
    EXPECT_TRUE(kept.ParseFromString(refit.pairs));
    refit.pair_count = kept.pairs_size();
    refit.held_out_count = kept.held_out_pairs_size();
    ObjectiveRecord fitted = *objective;
    fitted.method = request.method();
    if (!refit.pairs.empty()) fitted.pairs_hash = "new pairs";
    fitted.method_config = request.has_method_config() ? request.method_config().SerializeAsString() : "";
    return Commit(fitted, job, *TestVector(objective->model_fingerprint, 0.28f), refit);
  }
  absl::Status Commit(const ObjectiveRecord& objective, JobRecord job, const SteeringVector& vector,
                      const std::optional<RefitRecord>& refit = std::nullopt) {
    v1::RevisionSummary summary;
    summary.set_method(objective.method);
    summary.set_recommended_strength(vector.spec().default_strength);
    summary.set_max_strength(vector.spec().max_strength);
    summary.set_model_fingerprint(vector.spec().model_fingerprint);
    std::vector<AttributionRecord> attributions;
    for (int i = 0; i < 5; ++i) {
      v1::Attribution attribution;
      attribution.set_pair_index(i);
      attribution.add_tokens()->set_text(absl::StrCat("token ", i));
      attributions.push_back({.pair_index = i, .attribution = attribution.SerializeAsString()});
    }
    google::protobuf::Any result;
    result.PackFrom(v1::Objective());
    job.result = result.SerializeAsString();
    auto committed = registry_.CommitFit(objective.uid,
                                         {.objective = objective.name,
                                          .digest = vector.digest(),
                                          .model_fingerprint = vector.spec().model_fingerprint,
                                          .method = objective.method,
                                          .method_config = objective.method_config,
                                          .pairs_hash = objective.pairs_hash,
                                          .vector = vector.Serialize(),
                                          .summary = summary.SerializeAsString()},
                                         attributions, job, std::nullopt, refit);
    if (!committed.ok()) return committed.status();
    return publisher_.Publish(objective.name);
  }
  absl::Status Fail(const JobRecord& job, const absl::Status& error) {
    JobRecord failed = job;
    failed.error = ToRpcStatus(error).SerializeAsString();
    auto objective = registry_.GetObjective(job.target);
    if (auto status = registry_.CommitFitFailure(objective.ok() ? objective->uid : "", failed); !status.ok()) {
      return status;
    }
    return publisher_.Publish(job.target);
  }

  Registry& registry_;
  ObjectivePublisher& publisher_;
  absl::Mutex mutex_;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status outcome_ ABSL_GUARDED_BY(mutex_);
};

class ServicesTest : public ::testing::Test {
 protected:
  ServicesTest() : folder_(MakeFolder()) {
    auto opened = SqliteRegistry::Open(folder_ + "/registry.db", clock_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    registry_ = *std::move(opened);
    models_.Add(model_);
    EXPECT_TRUE(methods_
                    .Register({.id = "scripted",
                               .display_name = "Scripted",
                               .description = "for tests",
                               .config_type = "trimtab.methods.v1.GrainsConfig",
                               .sites = {"block_output"}},
                              MakeMethod)
                    .ok());
    std::ofstream(folder_ + "/probe.jsonl") << R"({"subject":"a","question":"1+1?","choices":["2","3"],"answer":0})"
                                               "\n"
                                            << R"({"subject":"b","question":"2+2?","choices":["5","4"],"answer":1})"
                                               "\n";
    std::ofstream(folder_ + "/neutral.txt") << std::string(600, 'n');
    auto suites = DriftSuites::Load({"probe=" + folder_ + "/probe.jsonl"}, folder_ + "/neutral.txt");
    EXPECT_TRUE(suites.ok()) << suites.status();
    suites_ = std::make_unique<DriftSuites>(*std::move(suites));
    publisher_ = std::make_unique<ObjectivePublisher>(*registry_, vectors_);
    fit_ = std::make_unique<ScriptedFit>(*registry_, *publisher_);
    jobs_ = std::make_unique<JobManager>(*registry_, JobManagerConfig{.max_queued = 3, .idle_priority = false}, clock_,
                                         nullptr);
    drift_ = std::make_unique<DriftRunner>(DriftRunner::Parts{.models = models_,
                                                              .vectors = vectors_,
                                                              .suites = *suites_,
                                                              .registry = *registry_,
                                                              .jobs = *jobs_,
                                                              .clock = clock_});
    for (const std::string_view kind : {kFitJob, kRefitJob}) jobs_->Register(std::string(kind), fit_->AsRunner());
    jobs_->Register(std::string(kDriftJob), drift_->Runner());
    EXPECT_TRUE(jobs_->Start().ok());
    page_tokens_ = std::make_unique<PageTokenCodec>(registry_->secret());
    environment_.models = &models_;
    environment_.vectors = &vectors_;
    environment_.clock = &clock_;
    environment_.prep = &executor_;
    environment_.egress = &executor_;
    environment_.id_prefix = "test";
    generation_service_ = std::make_unique<GenerationServiceImpl>(environment_);
    objective_service_ = std::make_unique<ObjectiveServiceImpl>(ObjectiveServiceImpl::Parts{
        models_, methods_, *registry_, *jobs_, *publisher_, *page_tokens_, executor_, clock_});
    drift_service_ = std::make_unique<DriftServiceImpl>(
        DriftServiceImpl::Parts{models_, vectors_, *registry_, *jobs_, *page_tokens_, executor_, clock_});
    operations_service_ = std::make_unique<OperationsServiceImpl>(
        OperationsServiceImpl::Parts{*registry_, *jobs_, *page_tokens_, executor_, clock_});
    server_ = std::make_unique<TestServer>(std::vector<grpc::Service*>{
        generation_service_.get(), objective_service_.get(), drift_service_.get(), operations_service_.get()});
    generation_ = v1::GenerationService::NewStub(server_->channel);
    objectives_ = v1::ObjectiveService::NewStub(server_->channel);
    drifts_ = v1::DriftService::NewStub(server_->channel);
    operations_ = google::longrunning::Operations::NewStub(server_->channel);
  }
  ~ServicesTest() override {
    fit_->Release();
    server_->server->Shutdown(absl::Now());
    jobs_->Shutdown();
    registry_.reset();
    std::filesystem::remove_all(folder_);
  }

  static v1::RegisterObjectiveRequest Registration(const std::string& id) {
    v1::RegisterObjectiveRequest request;
    request.set_parent("models/fake");
    request.set_objective_id(id);
    request.mutable_objective()->set_method("scripted");
    for (int i = 0; i < 4; ++i) {
      v1::PreferencePair& pair = *request.mutable_objective()->add_pairs();
      v1::Content& content = *pair.add_prompt();
      content.set_role(v1::ROLE_USER);
      content.add_parts()->set_text(absl::StrCat("question ", i));
      pair.set_preferred("good");
      pair.set_dispreferred("bad");
    }
    return request;
  }

  grpc::Status Register(const v1::RegisterObjectiveRequest& request, google::longrunning::Operation* operation) {
    grpc::ClientContext context;
    return objectives_->RegisterObjective(&context, request, operation);
  }
  // Until the operation is done.
  google::longrunning::Operation Await(const std::string& name) {
    google::longrunning::WaitOperationRequest request;
    request.set_name(name);
    google::longrunning::Operation operation;
    grpc::ClientContext context;
    const grpc::Status status = operations_->WaitOperation(&context, request, &operation);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_TRUE(operation.done());
    return operation;
  }
  // Registers and fits.
  v1::Objective Fitted(const std::string& id) {
    google::longrunning::Operation operation;
    const grpc::Status status = Register(Registration(id), &operation);
    EXPECT_TRUE(status.ok()) << status.error_message();
    operation = Await(operation.name());
    v1::Objective objective;
    EXPECT_TRUE(operation.response().UnpackTo(&objective)) << operation.ShortDebugString();
    return objective;
  }
  grpc::Status Get(const std::string& name, v1::Objective* objective) {
    v1::GetObjectiveRequest request;
    request.set_name(name);
    grpc::ClientContext context;
    return objectives_->GetObjective(&context, request, objective);
  }
  // Calls a stub's method and returns the status alone.
  template <typename Stub, typename Request, typename Response>
  grpc::Status Call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    return (stub.*method)(&context, request, response);
  }

  RealClock clock_;
  const std::string folder_;
  std::unique_ptr<SqliteRegistry> registry_;
  const std::shared_ptr<FakeModel> model_ = std::make_shared<FakeModel>();
  ModelDirectory models_;
  VectorStore vectors_;
  MethodRegistry methods_;
  Executor executor_{2, 1000};
  std::unique_ptr<DriftSuites> suites_;
  std::unique_ptr<ObjectivePublisher> publisher_;
  std::unique_ptr<ScriptedFit> fit_;
  std::unique_ptr<JobManager> jobs_;
  std::unique_ptr<DriftRunner> drift_;
  std::unique_ptr<PageTokenCodec> page_tokens_;
  CallEnvironment environment_;
  std::unique_ptr<GenerationServiceImpl> generation_service_;
  std::unique_ptr<ObjectiveServiceImpl> objective_service_;
  std::unique_ptr<DriftServiceImpl> drift_service_;
  std::unique_ptr<OperationsServiceImpl> operations_service_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<v1::GenerationService::Stub> generation_;
  std::unique_ptr<v1::ObjectiveService::Stub> objectives_;
  std::unique_ptr<v1::DriftService::Stub> drifts_;
  std::unique_ptr<google::longrunning::Operations::Stub> operations_;

 private:
  // A method that checks its configuration; the fit itself is scripted.
  class Unfitted final : public SteeringMethod {
   public:
    absl::StatusOr<FitResult> Fit(const FitInput&, ModelProbe&, JobContext&) const override {
      return absl::InternalError("the fit is scripted");
    }
  };
  static absl::StatusOr<std::unique_ptr<SteeringMethod>> MakeMethod(const google::protobuf::Any* config) {
    methods::v1::GrainsConfig parsed;
    if (config != nullptr && !config->UnpackTo(&parsed)) {
      return ReasonError(absl::StatusCode::kInvalidArgument, kMethodConfigMismatch, "another message");
    }
    if (parsed.k() < 0) return FieldError({{"method_config.k", "must be at least 1"}});
    return std::make_unique<Unfitted>();
  }
  static std::string MakeFolder() {
    std::string pattern = ::testing::TempDir() + "/servicesXXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    return pattern;
  }
};

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_RPC_SERVICES_FIXTURE_H_
