// Models come and go: ModelHost and ModelJobs on a real registry, job manager and engine; the files are small.
#include "server/model_jobs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "server/app_metrics.h"
#include "server/base/error.h"
#include "server/model_host.h"
#include "server/registry/sqlite_registry.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/to_proto.h"
#include "tests/server/model_folder.h"

namespace trimtab {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using State = JobRecord::State;

// Keeps the end of a request; holds the engine at the first token until it is let go.
class HeldSink final : public RequestSink {
 public:
  void OnToken(OutputToken) override {
    if (first_.HasBeenNotified()) return;
    first_.Notify();
    go_on_.WaitForNotification();
  }
  void OnEnd(RequestEnd end) override {
    end_ = std::move(end);
    ended_.Notify();
  }
  bool Ready() const override { return !full_; }
  // Takes nothing more: the sequence waits for ever.
  void Fill() { full_ = true; }
  void WaitForToken() { first_.WaitForNotification(); }
  void GoOn() { go_on_.Notify(); }
  const RequestEnd& Wait() {
    ended_.WaitForNotification();
    return end_;
  }

 private:
  std::atomic<bool> full_ = false;
  absl::Notification first_, go_on_, ended_;
  RequestEnd end_;
};

class ModelJobsTest : public ::testing::Test {
 protected:
  ModelJobsTest() : folder_(MakeFolder()) {
    config_.model_root = folder_ + "/models";
    config_.kv_cache_mib = 1;
    config_.drain_timeout = absl::InfiniteDuration();
    CopyModel("tiny", config_.model_root, "tiny");
    CopyModel("tiny_biased", config_.model_root, "other");
    Start();
  }
  ~ModelJobsTest() override {
    Stop();
    std::filesystem::remove_all(folder_);
  }

  void Start() {
    registry_ = *SqliteRegistry::Open(folder_ + "/registry.db", clock_);
    metrics_ = std::make_unique<AppMetrics>(config_, vectors_, clock_);
    publisher_ = std::make_unique<ObjectivePublisher>(*registry_, vectors_);
    host_ = std::make_unique<ModelHost>(
        ModelHost::Parts{.config = config_,
                         .clock = clock_,
                         .metrics = *metrics_,
                         .publisher = *publisher_,
                         .drift_suites = {"probe"},
                         .available_memory = [this] { return available_memory_.load(); },
                         .on_health =
                             [this](const std::string& id, bool serving) {
                               absl::MutexLock lock(&mutex_);
                               health_.push_back(absl::StrCat(id, serving ? " up" : " down"));
                             }});
    jobs_ = std::make_unique<JobManager>(
        *registry_, JobManagerConfig{.idle_priority = false, .retry_delay = absl::ZeroDuration()}, clock_, nullptr);
    model_jobs_ = std::make_unique<ModelJobs>(ModelJobs::Parts{.registry = *registry_,
                                                               .host = *host_,
                                                               .publisher = *publisher_,
                                                               .jobs = *jobs_,
                                                               .clock = clock_,
                                                               .drain_timeout = config_.drain_timeout,
                                                               .release_timeout = release_timeout_});
    model_jobs_->Register();
    // A fit that goes on until it is stopped, with the weights in its hands.
    jobs_->Register(std::string(kFitJob),
                    {.run =
                         [this](const JobRecord&, JobContext& context) {
                           const auto model = host_->FindLoaded("a");
                           if (!model.ok()) return model.status();
                           fitting_.Notify();
                           for (;;) {
                             if (const absl::Status status = context.Checkpoint(); !status.ok()) return status;
                           }
                         },
                     .fail =
                         [this](const JobRecord& job, const absl::Status& error) {
                           JobRecord failed = job;
                           failed.error = ToRpcStatus(error).SerializeAsString();
                           return registry_->UpdateJob(failed);
                         },
                     .metadata = [](const JobRecord&, const JobProgressSnapshot&) { return std::string(); }});
    ASSERT_TRUE(model_jobs_->Restore().ok());
    ASSERT_TRUE(jobs_->Start().ok());
  }
  void Stop() {
    jobs_.reset();
    model_jobs_.reset();
    host_.reset();
    publisher_.reset();
    metrics_.reset();
    registry_.reset();
  }
  void Restart() {
    Stop();
    Start();
  }

  // What ModelService does.
  JobRecord Submit(const std::string& kind, const std::string& id, const google::protobuf::Message& request) {
    JobRecord job{.name = absl::StrCat("operations/", kind, "-", ++last_job_),
                  .kind = kind,
                  .target = ModelName(id),
                  .request = request.SerializeAsString()};
    job = *registry_->CreateJob(job);
    EXPECT_TRUE(jobs_->Reserve(JobLane::kOperator).ok());
    return job;
  }
  JobRecord StartLoad(const std::string& id, const std::string& path) {
    v1::LoadModelRequest request;
    request.set_model_id(id);
    request.set_path(path);
    const JobRecord job = Submit("load", id, request);
    jobs_->Enqueue(job);
    return job;
  }
  JobRecord StartUnload(const std::string& id, absl::Duration drain_timeout = absl::Hours(1)) {
    v1::UnloadModelRequest request;
    request.set_name(ModelName(id));
    request.mutable_drain_timeout()->set_seconds(absl::ToInt64Seconds(drain_timeout));
    const JobRecord job = Submit("unload", id, request);
    host_->BeginUnload(id);
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
  static std::string Reason(const absl::Status& status) { return GetErrorDetail(status).reason; }
  v1::Model::State StateOf(const std::string& id) {
    const auto model = host_->directory().Describe(id);
    return model.ok() ? model->state() : v1::Model::STATE_UNSPECIFIED;
  }
  std::vector<std::string> health() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(health_, {});
  }
  static std::unique_ptr<Request> Ask(std::shared_ptr<RequestSink> sink) {
    auto request = std::make_unique<Request>();
    request->id = "request";
    request->tokens = {1, 2, 3};
    request->prompt_length = 3;
    request->sampling.max_output_tokens = 5;
    request->deadline = absl::InfiniteFuture();
    request->sink = std::move(sink);
    return request;
  }

  const RealClock clock_;
  const std::string folder_;
  ServerConfig config_;
  absl::Duration release_timeout_ = absl::InfiniteDuration();
  std::atomic<int64_t> available_memory_ = int64_t{1} << 40;
  VectorStore vectors_;
  std::unique_ptr<SqliteRegistry> registry_;
  std::unique_ptr<AppMetrics> metrics_;
  std::unique_ptr<ObjectivePublisher> publisher_;
  std::unique_ptr<ModelHost> host_;
  std::unique_ptr<JobManager> jobs_;
  std::unique_ptr<ModelJobs> model_jobs_;
  absl::Notification fitting_;
  int last_job_ = 0;

 private:
  static std::string MakeFolder() {
    std::string pattern = ::testing::TempDir() + "/modeljobsXXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    return pattern;
  }
  absl::Mutex mutex_;
  std::vector<std::string> health_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(ModelJobsTest, AModelIsLoadedServedAndRemembered) {
  const JobRecord ended = Await(StartLoad("a", "tiny"));
  ASSERT_EQ(ended.state, State::kSucceeded) << ErrorOf(ended);
  google::protobuf::Any result;
  v1::Model model;
  ASSERT_TRUE(result.ParseFromString(ended.result) && result.UnpackTo(&model));
  EXPECT_EQ(model.name(), "models/a");
  EXPECT_EQ(model.state(), v1::Model::STATE_READY);
  EXPECT_EQ(model.path(), "tiny");
  EXPECT_EQ(model.kv_cache_bytes(), 1 << 20);
  EXPECT_EQ(model.drift_suites(0), "probe");
  EXPECT_GT(model.weight_bytes(), 50'000);
  v1::LoadModelMetadata metadata;
  ASSERT_TRUE(metadata.ParseFromString(ended.metadata));
  EXPECT_EQ(metadata.completed_percent(), 100);
  EXPECT_THAT(health(), ElementsAre("a up"));
  EXPECT_THAT(metrics_->metrics().Scrape(), HasSubstr("trimtab_model_info{model=\"a\""));

  const auto sink = std::make_shared<HeldSink>();
  sink->GoOn();
  ASSERT_TRUE((*host_->directory().Find("a"))->Submit(Ask(sink)).ok());
  EXPECT_EQ(sink->Wait().usage.output_tokens, 5);
  EXPECT_EQ((*host_->FindLoaded("a"))->fingerprint, model.fingerprint());
  EXPECT_TRUE(host_->idle());

  Restart();
  EXPECT_EQ(host_->directory().Describe("a")->fingerprint(), model.fingerprint());
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_READY);
}

TEST_F(ModelJobsTest, WhatCannotBeLoadedLeavesNothing) {
  EXPECT_EQ(Reason(ErrorOf(Await(StartLoad("a", "../outside")))), kFieldInvalid);
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_UNSPECIFIED);
  std::ofstream(config_.model_root + "/broken.gguf") << "GGUF but not really";
  EXPECT_EQ(Reason(ErrorOf(Await(StartLoad("a", "broken.gguf")))), kModelFileInvalid);
  ASSERT_EQ(Await(StartLoad("a", "tiny")).state, State::kSucceeded);
  EXPECT_EQ(Reason(ErrorOf(Await(StartLoad("a", "other")))), kModelExists);
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_READY);
}

TEST_F(ModelJobsTest, AModelThatDoesNotFitIsRefusedWithNumbers) {
  available_memory_ = 1 << 20;
  v1::LoadModelRequest request;
  request.set_model_id("a");
  request.set_path("tiny");
  const absl::Status refused = host_->CheckLoad(request).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Reason(refused), kDeviceOutOfMemory);
  EXPECT_EQ(GetErrorDetail(refused).metadata.at("available_bytes"), "1048576");
  // Memory that was there when the call came may be gone when the job runs.
  EXPECT_EQ(Reason(ErrorOf(Await(StartLoad("a", "tiny")))), kDeviceOutOfMemory);
  available_memory_ = int64_t{1} << 40;
  EXPECT_EQ(host_->CheckLoad(request)->state(), v1::Model::STATE_LOADING);
  request.set_kv_cache_mib(1 << 20);
  EXPECT_EQ(Reason(host_->CheckLoad(request).status()), kDeviceOutOfMemory);
}

TEST_F(ModelJobsTest, AnUnloadLetsRunningCallsEnd) {
  ASSERT_EQ(Await(StartLoad("a", "tiny")).state, State::kSucceeded);
  health();
  std::shared_ptr<ServedModel> model = *host_->directory().Find("a");
  const auto sink = std::make_shared<HeldSink>();
  ASSERT_TRUE(model->Submit(Ask(sink)).ok());
  sink->WaitForToken();
  const JobRecord job = StartUnload("a");
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_UNLOADING);
  EXPECT_EQ(Reason(host_->directory().Find("a").status()), kModelNotReady);
  EXPECT_EQ(Reason(host_->FindLoaded("a").status()), kModelNotReady);
  EXPECT_EQ(Reason(host_->CheckUnload("a")), kModelNotReady);
  sink->GoOn();
  EXPECT_EQ(sink->Wait().usage.output_tokens, 5);
  // What found the model before still holds it.
  EXPECT_FALSE(model->end_tokens().empty());
  model.reset();
  const JobRecord ended = Await(job);
  EXPECT_EQ(ended.state, State::kSucceeded) << ErrorOf(ended);
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_UNSPECIFIED);
  EXPECT_THAT(health(), ElementsAre("a down", "a down"));
  EXPECT_THAT(metrics_->metrics().Scrape(), Not(HasSubstr("model=\"a\"")));
  EXPECT_TRUE(registry_->ListModels()->empty());
  // And it can come again.
  EXPECT_EQ(Await(StartLoad("a", "other")).state, State::kSucceeded);
}

TEST_F(ModelJobsTest, AnUnloadAbortsWhatDoesNotEndInTime) {
  ASSERT_EQ(Await(StartLoad("a", "tiny")).state, State::kSucceeded);
  const auto sink = std::make_shared<HeldSink>();
  sink->GoOn();
  sink->Fill();
  ASSERT_TRUE((*host_->directory().Find("a"))->Submit(Ask(sink)).ok());
  EXPECT_EQ(Await(StartUnload("a", absl::ZeroDuration())).state, State::kSucceeded);
  EXPECT_EQ(sink->Wait().reason, FinishReason::kCancelled);
  EXPECT_EQ(Reason(sink->Wait().status), kModelNotReady);
}

TEST_F(ModelJobsTest, AClientThatDoesNotReadDoesNotHoldAnUnload) {
  release_timeout_ = absl::ZeroDuration();
  Restart();
  ASSERT_EQ(Await(StartLoad("a", "tiny")).state, State::kSucceeded);
  std::shared_ptr<ServedModel> held = *host_->directory().Find("a");
  EXPECT_EQ(Await(StartUnload("a")).state, State::kSucceeded);
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_UNSPECIFIED);
  // What it holds works on, and no other model takes its place before it is gone.
  EXPECT_FALSE(held->end_tokens().empty());
  EXPECT_EQ(Reason(held->Submit(Ask(std::make_shared<HeldSink>()))), kModelNotReady);
  EXPECT_EQ(Reason(host_->CheckFree("a")), kModelNotReady);
  held.reset();
  while (!host_->CheckFree("a").ok()) std::this_thread::yield();
  EXPECT_EQ(Await(StartLoad("a", "other")).state, State::kSucceeded);
}

TEST_F(ModelJobsTest, AnUnloadCancelsTheModelsJobs) {
  ASSERT_EQ(Await(StartLoad("a", "tiny")).state, State::kSucceeded);
  JobRecord fit{.name = "operations/fit", .kind = std::string(kFitJob), .target = "models/a/objectives/calm"};
  JobRecord waiting{.name = "operations/fit2", .kind = std::string(kFitJob), .target = "models/a/objectives/brief"};
  JobRecord of_other{.name = "operations/fit3", .kind = std::string(kFitJob), .target = "models/ab/objectives/brief"};
  for (const JobRecord& job : {fit, waiting}) {
    ASSERT_TRUE(jobs_->Reserve().ok());
    jobs_->Enqueue(*registry_->CreateJob(job));
  }
  ASSERT_TRUE(registry_->CreateJob(of_other).ok());
  fitting_.WaitForNotification();
  EXPECT_EQ(Await(StartUnload("a")).state, State::kSucceeded);
  for (const JobRecord& job : {fit, waiting}) {
    const JobRecord ended = Await(job);
    EXPECT_EQ(ended.state, State::kCancelled);
    EXPECT_THAT(std::string(ErrorOf(ended).message()), HasSubstr("models/a is being unloaded"));
  }
  EXPECT_EQ(registry_->GetJob(of_other.name)->state, State::kQueued);
}

TEST_F(ModelJobsTest, ARememberedModelThatFailsIsListedWithItsError) {
  ASSERT_EQ(Await(StartLoad("a", "tiny")).state, State::kSucceeded);
  ASSERT_EQ(Await(StartLoad("b", "other")).state, State::kSucceeded);
  std::filesystem::rename(config_.model_root + "/tiny", config_.model_root + "/away");
  Restart();
  EXPECT_EQ(StateOf("b"), v1::Model::STATE_READY);
  const v1::Model failed = *host_->directory().Describe("a");
  EXPECT_EQ(failed.state(), v1::Model::STATE_FAILED);
  EXPECT_EQ(failed.path(), "tiny");
  EXPECT_EQ(Reason(FromRpcStatus(failed.error())), kFieldInvalid);
  EXPECT_EQ(Reason(host_->directory().Find("a").status()), kModelNotReady);
  // A load that fails too changes nothing; one that does not mends it.
  EXPECT_EQ(Await(StartLoad("a", "tiny")).state, State::kFailed);
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_FAILED);
  EXPECT_EQ(Await(StartLoad("a", "away")).state, State::kSucceeded);
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_READY);
  // The next start tries again by itself.
  available_memory_ = 0;
  Restart();
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_FAILED);
  available_memory_ = int64_t{1} << 40;
  Restart();
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_READY);
  // Unloading one that failed forgets it.
  available_memory_ = 0;
  Restart();
  ASSERT_TRUE(host_->CheckUnload("a").ok());
  EXPECT_EQ(Await(StartUnload("a")).state, State::kSucceeded);
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_UNSPECIFIED);
}

TEST_F(ModelJobsTest, AModelThatEndsServersIsGivenUp) {
  ASSERT_EQ(Await(StartLoad("a", "tiny")).state, State::kSucceeded);
  for (int64_t i = 0; i < ModelJobs::kMaxUnfinishedStarts; ++i)
    ASSERT_TRUE(registry_->BeginModelStart("models/a").ok());
  Restart();
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_FAILED);
  EXPECT_THAT(host_->directory().Describe("a")->error().message(), HasSubstr("died 3 times"));
  EXPECT_EQ(Await(StartLoad("a", "tiny")).state, State::kSucceeded);
  Restart();
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_READY);
}

TEST_F(ModelJobsTest, ALoadAndAnUnloadAreResumedAfterADeath) {
  ASSERT_EQ(Await(StartLoad("a", "tiny")).state, State::kSucceeded);
  // As a server leaves them that died: durable, unfinished.
  v1::LoadModelRequest load;
  load.set_model_id("b");
  load.set_path("other");
  const JobRecord loading = Submit("load", "b", load);
  v1::UnloadModelRequest unload;
  unload.set_name("models/a");
  const JobRecord unloading = Submit("unload", "a", unload);
  Restart();
  EXPECT_EQ(Await(loading).state, State::kSucceeded);
  EXPECT_EQ(StateOf("b"), v1::Model::STATE_READY);
  EXPECT_EQ(Await(unloading).state, State::kSucceeded);
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_UNSPECIFIED);
  Restart();
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_UNSPECIFIED);
  EXPECT_EQ(StateOf("b"), v1::Model::STATE_READY);
}

TEST_F(ModelJobsTest, AnUnloadThatIsCancelledInTimeChangesNothing) {
  ASSERT_EQ(Await(StartLoad("a", "tiny")).state, State::kSucceeded);
  v1::UnloadModelRequest unload;
  unload.set_name("models/a");
  const JobRecord job = Submit("unload", "a", unload);
  host_->BeginUnload("a");
  ASSERT_TRUE(registry_->RequestJobCancel(job.name).ok());
  jobs_->Enqueue(job);
  EXPECT_EQ(Await(job).state, State::kCancelled);
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_READY);
  EXPECT_TRUE(host_->directory().Find("a").ok());
  EXPECT_EQ(registry_->ListModels()->size(), 1u);
}

TEST_F(ModelJobsTest, WithoutARootThereIsNoLoading) {
  config_.model_root.clear();
  Restart();
  v1::LoadModelRequest request;
  request.set_model_id("a");
  request.set_path("tiny");
  EXPECT_EQ(Reason(host_->CheckLoad(request).status()), kLoadingDisabled);
}

}  // namespace
}  // namespace trimtab
