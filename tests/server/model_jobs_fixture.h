// What the tests of models that come and go share: ModelHost and ModelJobs on a real registry, job manager and engine;
// the files are small.
#ifndef TRIMTAB_TESTS_SERVER_MODEL_JOBS_FIXTURE_H_
#define TRIMTAB_TESTS_SERVER_MODEL_JOBS_FIXTURE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "server/app_metrics.h"
#include "server/base/error.h"
#include "server/model_host.h"
#include "server/model_jobs.h"
#include "server/registry/sqlite_registry.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/to_proto.h"
#include "tests/server/model_folder.h"

namespace trimtab {

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
    host_ = std::make_unique<ModelHost>(ModelHost::Parts{.config = config_,
                                                         .clock = clock_,
                                                         .metrics = *metrics_,
                                                         .publisher = *publisher_,
                                                         .drift_suites = {"probe"},
                                                         .available_memory =
                                                             [this] {
                                                               if (on_memory_) on_memory_();
                                                               return available_memory_.load();
                                                             },
                                                         .on_health =
                                                             [this](const std::string& id, bool serving) {
                                                               absl::MutexLock lock(&mutex_);
                                                               health_.push_back(
                                                                   absl::StrCat(id, serving ? " up" : " down"));
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
  std::function<void()> on_memory_;  // called when a load asks for memory, before it reads
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

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_MODEL_JOBS_FIXTURE_H_
