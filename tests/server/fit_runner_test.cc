// Fit jobs from a stored registration to a published revision, with a tiny model and the real method.
#include "server/fit_runner.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "models/testing/tiny_model.h"
#include "server/base/error.h"
#include "server/engine/engine.h"
#include "server/engine_model.h"
#include "server/registry/sqlite_registry.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/to_proto.h"
#include "trimtab/methods/v1/grains.pb.h"
#include "trimtab/v1/objective.pb.h"

namespace trimtab {
namespace {

class FitRunnerTest : public ::testing::Test {
 protected:
  FitRunnerTest() : folder_(MakeFolder()) {
    auto registry = SqliteRegistry::Open(folder_ + "/registry.db", clock_);
    EXPECT_TRUE(registry.ok()) << registry.status();
    registry_ = *std::move(registry);
    EXPECT_TRUE(RegisterBuiltinMethods(methods_).ok());
    loaded_ = MakeTinyLoadedModel();
    auto engine = Engine::Create(loaded_, {.kv_cache_bytes = 8 << 20, .num_threads = 1}, clock_, nullptr);
    EXPECT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    models_.Add(std::make_shared<EngineModel>(loaded_, *engine_, 512, std::vector<std::string>{"probe"}, clock_.Now()));
    std::ofstream(folder_ + "/neutral.txt") << std::string(400, 'n') + " and so on";
    auto suites = DriftSuites::Load({}, folder_ + "/neutral.txt");
    EXPECT_TRUE(suites.ok()) << suites.status();
    suites_ = std::make_unique<DriftSuites>(*std::move(suites));
    publisher_ = std::make_unique<ObjectivePublisher>(*registry_, vectors_);
    StartJobs();
  }
  ~FitRunnerTest() override {
    jobs_->Shutdown();
    std::filesystem::remove_all(folder_);
  }

  // A job manager with the runners, as at a server's start. `gate` is called at every checkpoint.
  void StartJobs(std::function<void()> gate = nullptr) {
    jobs_ = std::make_unique<JobManager>(*registry_, JobManagerConfig{.idle_priority = false}, clock_, nullptr);
    drift_ = std::make_unique<DriftRunner>(DriftRunner::Parts{.models = models_,
                                                              .vectors = vectors_,
                                                              .suites = *suites_,
                                                              .registry = *registry_,
                                                              .jobs = *jobs_,
                                                              .clock = clock_});
    fit_ = std::make_unique<FitRunner>(FitRunner::Parts{.registry = *registry_,
                                                        .methods = methods_,
                                                        .publisher = *publisher_,
                                                        .suites = *suites_,
                                                        .drift = *drift_,
                                                        .jobs = *jobs_,
                                                        .clock = clock_,
                                                        .find_model = [this](std::string_view) {
                                                          return absl::StatusOr<std::shared_ptr<const LoadedModel>>(
                                                              loaded_);
                                                        }});
    if (gate) jobs_->set_gate(std::move(gate));
    for (const std::string_view kind : {kFitJob, kRefitJob}) jobs_->Register(std::string(kind), fit_->Runner());
    EXPECT_TRUE(jobs_->Start().ok());
  }

  // What RegisterObjective stores.
  JobRecord Register(const std::string& id, bool equal_answers = false, const std::string& method = "grains") {
    v1::Objective pairs;
    for (int i = 0; i < 8; ++i) {
      v1::PreferencePair& pair = *(i < 6 ? pairs.add_pairs() : pairs.add_held_out_pairs());
      v1::Content& content = *pair.add_prompt();
      content.set_role(v1::ROLE_USER);
      content.add_parts()->set_text(absl::StrCat("question number ", i));
      pair.set_preferred("yes!");
      pair.set_dispreferred(equal_answers ? "yes!" : "no..");
    }
    methods::v1::GrainsConfig config;
    config.set_k(2);
    config.mutable_fit()->set_random_directions(2);
    google::protobuf::Any any;
    any.PackFrom(config);
    ObjectiveRecord objective{.name = absl::StrCat("models/", loaded_->id, "/objectives/", id),
                              .method = method,
                              .method_config = method == "grains" ? any.SerializeAsString() : "",
                              .pairs = pairs.SerializeAsString(),
                              .pairs_hash = "hash",
                              .pair_count = 6,
                              .held_out_count = 2,
                              .model_fingerprint = loaded_->fingerprint,
                              .operation = "operations/fit-" + id};
    v1::RegisterObjectiveRequest request;
    request.set_objective_id(id);
    JobRecord job{.name = objective.operation,
                  .kind = std::string(kFitJob),
                  .target = objective.name,
                  .request = request.SerializeAsString()};
    objective.create_time = objective.update_time = job.create_time = job.update_time = clock_.Now();
    EXPECT_TRUE(registry_->CreateObjective(objective, job).ok());
    EXPECT_TRUE(publisher_->Publish(objective.name).ok());
    return job;
  }
  // What RefitObjective queues for the objective "calm".
  JobRecord Refit(const std::string& id, const v1::RefitObjectiveRequest& request, const std::string& pairs) {
    JobRecord job{.name = "operations/refit-" + id,
                  .kind = std::string(kRefitJob),
                  .target = absl::StrCat("models/", loaded_->id, "/objectives/calm"),
                  .request = request.SerializeAsString()};
    return registry_->BeginRefit(job.target, job, pairs, "").value();
  }
  JobRecord Await(const JobRecord& job) {
    absl::Notification done;
    absl::StatusOr<JobRecord> ended;
    jobs_->Wait(job.name, absl::InfiniteFuture(), [&](absl::StatusOr<JobRecord> record) {
      ended = std::move(record);
      done.Notify();
    });
    done.WaitForNotification();
    EXPECT_TRUE(ended.ok()) << ended.status();
    return *ended;
  }
  JobRecord Run(const JobRecord& job) {
    EXPECT_TRUE(jobs_->Reserve().ok());
    jobs_->Enqueue(job);
    return Await(job);
  }
  static absl::Status ErrorOf(const JobRecord& job) {
    google::rpc::Status status;
    EXPECT_TRUE(status.ParseFromString(job.error));
    return FromRpcStatus(status);
  }

  const RealClock clock_;
  const std::string folder_;
  std::unique_ptr<SqliteRegistry> registry_;
  MethodRegistry methods_;
  std::shared_ptr<const LoadedModel> loaded_;
  std::unique_ptr<Engine> engine_;
  ModelDirectory models_;
  VectorStore vectors_;
  std::unique_ptr<DriftSuites> suites_;
  std::unique_ptr<ObjectivePublisher> publisher_;
  std::unique_ptr<JobManager> jobs_;
  std::unique_ptr<DriftRunner> drift_;
  std::unique_ptr<FitRunner> fit_;

 private:
  static std::string MakeFolder() {
    std::string pattern = ::testing::TempDir() + "/fitXXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    return pattern;
  }
};

TEST_F(FitRunnerTest, AFitIsStoredAndServed) {
  const JobRecord job = Register("calm");
  const JobRecord ended = Run(job);
  ASSERT_EQ(ended.state, JobRecord::State::kSucceeded) << ErrorOf(ended);
  v1::RegisterObjectiveMetadata metadata;
  ASSERT_TRUE(metadata.ParseFromString(ended.metadata));
  EXPECT_EQ(metadata.objective(), job.target);
  EXPECT_EQ(metadata.completed_percent(), 100);
  EXPECT_TRUE(metadata.drift_report().empty());

  const ObjectiveRecord objective = *registry_->GetObjective(job.target);
  EXPECT_EQ(objective.state, ObjectiveRecord::State::kActive);
  const RevisionRecord revision = *registry_->GetRevision(job.target, 1);
  const auto vector = SteeringVector::Parse(revision.vector);
  ASSERT_TRUE(vector.ok()) << vector.status();
  EXPECT_EQ((*vector)->digest(), revision.digest);
  EXPECT_EQ((*vector)->spec().model_fingerprint, loaded_->fingerprint);

  const v1::RevisionSummary summary = ToProto(revision);
  EXPECT_EQ(summary.method(), "grains");
  EXPECT_EQ(summary.pairs_digest(), "hash");
  EXPECT_EQ(summary.digest(), revision.digest);
  EXPECT_EQ(summary.held_out().pair_count(), 2);
  EXPECT_EQ(summary.random_control().directions(), 2);
  EXPECT_EQ(summary.layers_size(), static_cast<int>((*vector)->spec().layers.size()));
  EXPECT_EQ(summary.recommended_strength(), (*vector)->spec().default_strength);
  methods::v1::GrainsConfig config;
  EXPECT_TRUE(summary.method_config().UnpackTo(&config));
  EXPECT_EQ(config.k(), 2);

  const auto attributions = *registry_->ListAttributions(job.target, 1, -1, 100);
  ASSERT_FALSE(attributions.empty());
  v1::Attribution attribution;
  ASSERT_TRUE(attribution.ParseFromString(attributions[0].attribution));
  EXPECT_GT(attribution.tokens_size(), 10);
  EXPECT_FALSE(attribution.method().empty());

  const auto served = vectors_.Find(job.target);
  EXPECT_EQ(served->state, ServedObjective::State::kActive);
  EXPECT_EQ(served->revisions.at(1)->digest(), revision.digest);
}

TEST_F(FitRunnerTest, AChoiceAmongMethodsIsStoredWithItsReasons) {
  const JobRecord job = Register("calm", /*equal_answers=*/false, "auto");
  const JobRecord ended = Run(job);
  ASSERT_EQ(ended.state, JobRecord::State::kSucceeded) << ErrorOf(ended);
  const RevisionRecord revision = *registry_->GetRevision(job.target, 1);
  const v1::RevisionSummary summary = ToProto(revision);
  EXPECT_EQ(summary.method(), "auto");
  ASSERT_GE(summary.trials_size(), 4);
  int chosen = 0;
  for (const v1::MethodTrial& trial : summary.trials()) {
    EXPECT_TRUE(trial.error().empty() || !trial.has_validation()) << trial.ShortDebugString();
    if (!trial.chosen()) continue;
    ++chosen;
    EXPECT_EQ((*SteeringVector::Parse(revision.vector))->spec().method, trial.method());
    EXPECT_FLOAT_EQ(trial.strength(), summary.recommended_strength());
    EXPECT_EQ(trial.layer(), summary.layers(0).layer());
    EXPECT_GT(trial.validation().pair_count(), 0);
    EXPECT_NE(summary.choice().find(trial.method()), std::string::npos) << summary.choice();
  }
  EXPECT_EQ(chosen, 1);
}

TEST_F(FitRunnerTest, PairsWithoutSignalFailTheObjective) {
  const JobRecord job = Register("same", /*equal_answers=*/true);
  const JobRecord ended = Run(job);
  EXPECT_EQ(ended.state, JobRecord::State::kFailed);
  EXPECT_EQ(GetErrorDetail(ErrorOf(ended)).reason, "PAIRS_DEGENERATE");
  EXPECT_EQ(registry_->GetObjective(job.target)->state, ObjectiveRecord::State::kFailed);
  EXPECT_EQ(vectors_.Find(job.target)->state, ServedObjective::State::kFailed);
}

TEST_F(FitRunnerTest, AnObjectiveThatIsDeletedMeanwhileLeavesNothing) {
  jobs_->Shutdown();
  absl::Notification started, go_on;
  StartJobs([&] {
    if (started.HasBeenNotified()) return;
    started.Notify();
    go_on.WaitForNotification();
  });
  const JobRecord job = Register("calm");
  ASSERT_TRUE(jobs_->Reserve().ok());
  jobs_->Enqueue(job);
  started.WaitForNotification();
  ASSERT_TRUE(registry_->DeleteObjective(job.target, "").ok());
  ASSERT_TRUE(publisher_->Publish(job.target).ok());
  go_on.Notify();
  EXPECT_NE(Await(job).state, JobRecord::State::kSucceeded);
  EXPECT_FALSE(registry_->GetObjective(job.target).ok());
  EXPECT_EQ(vectors_.Find(job.target), nullptr);
}

TEST_F(FitRunnerTest, ARefitTakesItsOwnMethodAndPairs) {
  const JobRecord first = Register("calm");
  ASSERT_EQ(Run(first).state, JobRecord::State::kSucceeded);
  const RevisionRecord before = *registry_->GetRevision(first.target, 1);
  EXPECT_GT(ToProto(before).fit_rows(), 0);
  // With nothing of its own: the same again.
  v1::RefitObjectiveRequest request;
  request.set_name(first.target);
  request.set_method("grains");
  ASSERT_TRUE(request.mutable_method_config()->ParseFromString(before.method_config));
  const JobRecord again = Run(Refit("again", request, ""));
  ASSERT_EQ(again.state, JobRecord::State::kSucceeded) << ErrorOf(again);
  EXPECT_EQ(registry_->GetRevision(first.target, 2)->digest, before.digest);
  EXPECT_EQ(registry_->GetRevision(first.target, 2)->pairs_hash, "hash");

  v1::Objective pairs;
  ASSERT_TRUE(pairs.ParseFromString(registry_->GetObjective(first.target)->pairs));
  pairs.mutable_pairs()->DeleteSubrange(5, 1);
  request.clear_method_config();
  request.set_method("mean_diff");
  request.set_keep_active(true);
  const JobRecord other = Run(Refit("other", request, pairs.SerializeAsString()));
  ASSERT_EQ(other.state, JobRecord::State::kSucceeded) << ErrorOf(other);
  const ObjectiveRecord objective = *registry_->GetObjective(first.target);
  EXPECT_EQ(objective.active_revision, 2);
  EXPECT_EQ(objective.method, "mean_diff");
  EXPECT_EQ(objective.method_config, "");
  EXPECT_EQ(objective.pair_count, 5);
  EXPECT_EQ(objective.held_out_count, 2);
  const RevisionRecord revision = *registry_->GetRevision(first.target, 3);
  EXPECT_EQ(revision.method, "mean_diff");
  EXPECT_EQ(revision.pairs_hash, objective.pairs_hash);
  EXPECT_NE(revision.pairs_hash, "hash");
  EXPECT_EQ(ToProto(revision).pairs_digest(), revision.pairs_hash);
  EXPECT_EQ(vectors_.Find(first.target)->active_revision, 2);
  EXPECT_EQ(vectors_.Find(first.target)->revisions.size(), 3u);
}

TEST_F(FitRunnerTest, AFailedRefitLeavesTheObjectiveInService) {
  const JobRecord first = Register("calm");
  ASSERT_EQ(Run(first).state, JobRecord::State::kSucceeded);
  v1::Objective pairs;
  ASSERT_TRUE(pairs.ParseFromString(registry_->GetObjective(first.target)->pairs));
  for (v1::PreferencePair& pair : *pairs.mutable_pairs()) pair.set_dispreferred(pair.preferred());
  v1::RefitObjectiveRequest request;
  request.set_method("grains");
  const JobRecord ended = Run(Refit("same", request, pairs.SerializeAsString()));
  EXPECT_EQ(ended.state, JobRecord::State::kFailed);
  EXPECT_EQ(GetErrorDetail(ErrorOf(ended)).reason, "PAIRS_DEGENERATE");
  EXPECT_EQ(registry_->GetObjective(first.target)->state, ObjectiveRecord::State::kActive);
  EXPECT_EQ(registry_->GetObjective(first.target)->refit, "");
  EXPECT_EQ(vectors_.Find(first.target)->active_revision, 1);
}

TEST_F(FitRunnerTest, AnInterruptedRefitGoesOn) {
  const JobRecord first = Register("calm");
  ASSERT_EQ(Run(first).state, JobRecord::State::kSucceeded);
  const RevisionRecord before = *registry_->GetRevision(first.target, 1);
  jobs_->Shutdown();
  absl::Notification enough;
  int checkpoints = 0;
  StartJobs([&] {
    if (++checkpoints == 5) enough.Notify();
  });
  v1::RefitObjectiveRequest request;
  request.set_method("grains");
  ASSERT_TRUE(request.mutable_method_config()->ParseFromString(before.method_config));
  const JobRecord job = Refit("interrupted", request, registry_->GetObjective(first.target)->pairs);
  ASSERT_TRUE(jobs_->Reserve().ok());
  jobs_->Enqueue(job);
  enough.WaitForNotification();
  jobs_->Shutdown();
  StartJobs();
  ASSERT_EQ(Await(job).state, JobRecord::State::kSucceeded);
  EXPECT_EQ(registry_->GetRevision(first.target, 2)->digest, before.digest);
  EXPECT_EQ(ToProto(*registry_->GetRevision(first.target, 2)).fit_rows(), 0) << "its time is that of the rest only";
}

TEST_F(FitRunnerTest, AnInterruptedFitGivesTheSameVectors) {
  const JobRecord whole = Register("whole");
  ASSERT_EQ(Run(whole).state, JobRecord::State::kSucceeded);
  const std::string digest = registry_->GetRevision(whole.target, 1)->digest;

  jobs_->Shutdown();
  absl::Notification enough;
  int checkpoints = 0;
  StartJobs([&] {
    if (++checkpoints == 5) enough.Notify();
  });
  const JobRecord job = Register("interrupted");
  ASSERT_TRUE(jobs_->Reserve().ok());
  jobs_->Enqueue(job);
  enough.WaitForNotification();
  jobs_->Shutdown();
  StartJobs();
  ASSERT_EQ(Await(job).state, JobRecord::State::kSucceeded);
  EXPECT_EQ(registry_->GetRevision(job.target, 1)->digest, digest);
}

}  // namespace
}  // namespace trimtab
