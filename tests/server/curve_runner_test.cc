// Curve jobs from a stored revision to a stored curve, with a tiny model and its engine.
#include "server/curve_runner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
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

namespace trimtab {
namespace {

class CurveRunnerTest : public ::testing::Test {
 protected:
  CurveRunnerTest() : folder_(MakeFolder()) {
    registry_ = SqliteRegistry::Open(folder_ + "/registry.db", clock_).value();
    EXPECT_TRUE(RegisterBuiltinMethods(methods_).ok());
    loaded_ = MakeTinyLoadedModel();
    engine_ = Engine::Create(loaded_, {.kv_cache_bytes = 8 << 20, .num_threads = 1}, clock_, nullptr).value();
    models_.Add(std::make_shared<EngineModel>(loaded_, *engine_, 512, std::vector<std::string>(), clock_.Now()));
    std::ofstream(folder_ + "/neutral.txt") << std::string(400, 'n') + " and so on";
    suites_ = std::make_unique<DriftSuites>(DriftSuites::Load({}, folder_ + "/neutral.txt").value());
    StartJobs();
    AddRevision();
  }
  ~CurveRunnerTest() override {
    jobs_->Shutdown();
    std::filesystem::remove_all(folder_);
  }

  void StartJobs(std::function<void()> gate = nullptr) {
    jobs_ = std::make_unique<JobManager>(*registry_, JobManagerConfig{.idle_priority = false}, clock_, nullptr);
    curve_ = std::make_unique<CurveRunner>(
        CurveRunner::Parts{.registry = *registry_,
                           .methods = methods_,
                           .models = models_,
                           .suites = *suites_,
                           .jobs = *jobs_,
                           .clock = clock_,
                           .find_model = [this](std::string_view) {
                             return absl::StatusOr<std::shared_ptr<const LoadedModel>>(loaded_);
                           }});
    if (gate) jobs_->set_gate(std::move(gate));
    jobs_->Register(std::string(kCurveJob), curve_->Runner());
    EXPECT_TRUE(jobs_->Start().ok());
  }

  static void AddPair(google::protobuf::RepeatedPtrField<v1::PreferencePair>& pairs, int number) {
    v1::PreferencePair& pair = *pairs.Add();
    v1::Content& content = *pair.add_prompt();
    content.set_role(v1::ROLE_USER);
    content.add_parts()->set_text(absl::StrCat("question number ", number));
    pair.set_preferred(absl::StrCat("yes! ", number));
    pair.set_dispreferred("no..");
  }
  // An objective with one revision along an arbitrary direction.
  void AddRevision() {
    v1::Objective pairs;
    for (int i = 0; i < 20; ++i) AddPair(*pairs.mutable_pairs(), i);
    SteeringVectorSpec spec;
    spec.model_fingerprint = loaded_->fingerprint;
    spec.method = "grains";
    spec.default_strength = 0.1f;
    spec.max_strength = 0.5f;
    spec.hidden_size = loaded_->model->spec().hidden_size;
    const auto hidden = static_cast<size_t>(spec.hidden_size);
    spec.layers = {{.layer = 1, .direction = std::vector<float>(hidden, 1 / std::sqrt(static_cast<float>(hidden)))}};
    vector_ = SteeringVector::Create(std::move(spec)).value();
    ObjectiveRecord objective{.name = absl::StrCat("models/", loaded_->id, "/objectives/calm"),
                              .method = "grains",
                              .pairs = pairs.SerializeAsString(),
                              .pairs_hash = "hash",
                              .pair_count = 20,
                              .model_fingerprint = loaded_->fingerprint};
    JobRecord job{.name = "operations/fit", .kind = std::string(kFitJob), .target = objective.name};
    objective.create_time = objective.update_time = job.create_time = job.update_time = clock_.Now();
    const std::string uid = registry_->CreateObjective(objective, job)->objective.uid;
    v1::RevisionSummary summary;
    summary.set_max_strength(0.5f);
    ASSERT_TRUE(registry_
                    ->CommitFit(uid,
                                {.objective = objective.name,
                                 .digest = vector_->digest(),
                                 .model_fingerprint = loaded_->fingerprint,
                                 .method = "grains",
                                 .pairs_hash = "hash",
                                 .vector = vector_->Serialize(),
                                 .summary = summary.SerializeAsString()},
                                {}, job)
                    .ok());
    name_ = objective.name;
  }
  // What EvaluateStrength queues. Without pairs: those of the validation.
  JobRecord Queue(const std::string& id, const v1::EvaluateStrengthRequest& more = {}) {
    v1::EvaluateStrengthRequest request = more;
    request.set_name(name_ + "/revisions/1");
    for (const float strength : {-0.2f, 0.0f, 0.1f, 0.4f}) request.add_strengths(strength);
    v1::EvaluateStrengthMetadata metadata;
    metadata.set_pairs_source(more.pairs().empty() ? "validation" : "request");
    JobRecord job{.name = "operations/" + id,
                  .kind = std::string(kCurveJob),
                  .target = request.name(),
                  .request = request.SerializeAsString(),
                  .metadata = metadata.SerializeAsString()};
    job = registry_->CreateJob(job).value();
    EXPECT_TRUE(jobs_->Reserve().ok());
    jobs_->Enqueue(job);
    return job;
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
  static absl::Status ErrorOf(const JobRecord& job) {
    google::rpc::Status status;
    EXPECT_TRUE(status.ParseFromString(job.error));
    return FromRpcStatus(status);
  }
  v1::StrengthCurve Stored() {
    v1::StrengthCurve curve;
    EXPECT_TRUE(curve.ParseFromString(registry_->GetRevision(name_, 1)->curve));
    return curve;
  }

  const RealClock clock_;
  const std::string folder_;
  std::unique_ptr<SqliteRegistry> registry_;
  MethodRegistry methods_;
  std::shared_ptr<const LoadedModel> loaded_;
  std::unique_ptr<Engine> engine_;
  ModelDirectory models_;
  std::unique_ptr<DriftSuites> suites_;
  std::shared_ptr<const SteeringVector> vector_;
  std::string name_;
  std::unique_ptr<JobManager> jobs_;
  std::unique_ptr<CurveRunner> curve_;

 private:
  static std::string MakeFolder() {
    std::string pattern = ::testing::TempDir() + "/curveXXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    return pattern;
  }
};

TEST_F(CurveRunnerTest, ACurveIsMeasuredAndStoredWithTheRevision) {
  const std::string before = registry_->GetRevision(name_, 1)->vector;
  const JobRecord ended = Await(Queue("c1"));
  ASSERT_EQ(ended.state, JobRecord::State::kSucceeded) << ErrorOf(ended);
  v1::EvaluateStrengthMetadata metadata;
  ASSERT_TRUE(metadata.ParseFromString(ended.metadata));
  EXPECT_EQ(metadata.revision(), name_ + "/revisions/1");
  EXPECT_EQ(metadata.completed_percent(), 100);
  EXPECT_EQ(metadata.pairs_source(), "validation");

  const v1::StrengthCurve curve = Stored();
  EXPECT_EQ(curve.revision(), name_ + "/revisions/1");
  EXPECT_EQ(curve.pairs_source(), "validation");
  EXPECT_EQ(curve.pair_count(), 4);  // a fifth of 20
  EXPECT_EQ(curve.pairs_digest().size(), 64u);
  EXPECT_NEAR(curve.max_kl(), 0.2, 1e-6);
  ASSERT_EQ(curve.points_size(), 4);
  const v1::CurvePoint& zero = curve.points(1);
  EXPECT_EQ(zero.strength(), 0);
  EXPECT_EQ(zero.effect().margin_gain(), 0);
  EXPECT_EQ(zero.kl_text(), 0);
  EXPECT_EQ(zero.cross_entropy_change(), 0);
  for (const int i : {0, 2, 3}) {
    const v1::CurvePoint& point = curve.points(i);
    EXPECT_NE(point.effect().margin_gain(), 0) << i;
    EXPECT_EQ(point.effect().pair_count(), 4);
    EXPECT_EQ(point.effect().strength(), point.strength());
    EXPECT_GT(point.kl_text(), 0) << i;
    EXPECT_NE(point.cross_entropy_change(), 0) << i;
    EXPECT_GE(point.repetition(), 0) << i;
    EXPECT_LE(point.repetition(), 1) << i;
  }
  EXPECT_GT(curve.points(3).kl_text(), curve.points(2).kl_text());
  google::protobuf::Any result;
  v1::StrengthCurve response;
  ASSERT_TRUE(result.ParseFromString(ended.result) && result.UnpackTo(&response));
  EXPECT_EQ(response.SerializeAsString(), curve.SerializeAsString());
  EXPECT_EQ(ToProto(*registry_->GetRevision(name_, 1)).curve().points_size(), 4);
  EXPECT_EQ(registry_->GetRevision(name_, 1)->vector, before);
}

TEST_F(CurveRunnerTest, GivenPairsAreMeasuredAndBadOnesLeftOut) {
  v1::EvaluateStrengthRequest request;
  for (int i = 0; i < 3; ++i) AddPair(*request.mutable_pairs(), 100 + i);
  AddPair(*request.mutable_pairs(), 200);
  request.mutable_pairs(3)->mutable_prompt(0)->mutable_parts(0)->set_text(std::string(5000, 'x'));
  const JobRecord ended = Await(Queue("c1", request));
  ASSERT_EQ(ended.state, JobRecord::State::kSucceeded) << ErrorOf(ended);
  EXPECT_EQ(Stored().pair_count(), 3);
  EXPECT_EQ(Stored().pairs_source(), "request");
  v1::EvaluateStrengthMetadata metadata;
  ASSERT_TRUE(metadata.ParseFromString(ended.metadata));
  ASSERT_EQ(metadata.partial_failures_size(), 1);
  EXPECT_TRUE(metadata.partial_failures(0).message().starts_with("pairs[3]: "));

  request.mutable_pairs()->DeleteSubrange(0, 3);
  const JobRecord failed = Await(Queue("c2", request));
  EXPECT_EQ(failed.state, JobRecord::State::kFailed);
  EXPECT_EQ(GetErrorDetail(ErrorOf(failed)).reason, "PAIRS_DEGENERATE");
  EXPECT_EQ(Stored().pair_count(), 3) << "the earlier curve stays";
}

TEST_F(CurveRunnerTest, AnInterruptedCurveComesOutTheSame) {
  ASSERT_EQ(Await(Queue("whole")).state, JobRecord::State::kSucceeded);
  v1::StrengthCurve whole = Stored();
  jobs_->Shutdown();
  absl::Notification enough;
  int checkpoints = 0;
  StartJobs([&] {
    if (++checkpoints == 8) enough.Notify();
  });
  const JobRecord job = Queue("interrupted");
  enough.WaitForNotification();
  jobs_->Shutdown();
  ASSERT_EQ(registry_->GetJob(job.name)->state, JobRecord::State::kQueued);
  EXPECT_TRUE(registry_->LoadPartial(job.name, "margins/0")->has_value());
  StartJobs();
  ASSERT_EQ(Await(job).state, JobRecord::State::kSucceeded);
  v1::StrengthCurve pieces = Stored();
  whole.clear_create_time();
  pieces.clear_create_time();
  EXPECT_EQ(pieces.DebugString(), whole.DebugString());
}

TEST_F(CurveRunnerTest, ACancelledCurveLeavesNothing) {
  jobs_->Shutdown();
  absl::Notification started, go_on;
  StartJobs([&] {
    if (started.HasBeenNotified()) return;
    started.Notify();
    go_on.WaitForNotification();
  });
  const JobRecord job = Queue("c1");
  started.WaitForNotification();
  ASSERT_TRUE(jobs_->Cancel(job.name).ok());
  go_on.Notify();
  EXPECT_EQ(Await(job).state, JobRecord::State::kCancelled);
  EXPECT_EQ(registry_->GetRevision(name_, 1)->curve, "");
}

TEST_F(CurveRunnerTest, APairsChangeMeanwhileFailsTheJob) {
  JobRecord refit{.name = "operations/refit", .kind = std::string(kRefitJob), .target = name_};
  const std::string uid = registry_->GetObjective(name_)->uid;
  ASSERT_TRUE(registry_->BeginRefit(name_, refit, "p", "").ok());
  ASSERT_TRUE(registry_
                  ->CommitFit(uid, {.objective = name_, .digest = "d", .pairs_hash = "other"}, {}, refit, std::nullopt,
                              RefitRecord{.pairs = "p"})
                  .ok());
  const JobRecord ended = Await(Queue("c1"));
  EXPECT_EQ(ended.state, JobRecord::State::kFailed);
  EXPECT_NE(ErrorOf(ended).message().find("give pairs"), absl::string_view::npos) << ErrorOf(ended);
}

}  // namespace
}  // namespace trimtab
