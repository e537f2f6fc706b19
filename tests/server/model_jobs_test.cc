// Models are loaded and unloaded while the server runs.
#include "server/model_jobs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "tests/server/model_jobs_fixture.h"

namespace trimtab {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using State = JobRecord::State;

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

TEST_F(ModelJobsTest, AFolderWithoutItsWeightsIsRefusedBeforeLoading) {
  std::filesystem::remove(config_.model_root + "/tiny/model.safetensors");
  v1::LoadModelRequest request;
  request.set_model_id("a");
  request.set_path("tiny");
  const absl::Status refused = host_->CheckLoad(request).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Reason(refused), kModelFileInvalid);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("there are no weights"));
  EXPECT_EQ(Reason(ErrorOf(Await(StartLoad("a", "tiny")))), kModelFileInvalid);
}

// The last question whether a load may go on, before its weights are read.
TEST_F(ModelJobsTest, ALoadIsCancelledWhileItReads) {
  std::string name;
  absl::Notification named;
  on_memory_ = [&] {
    named.WaitForNotification();
    EXPECT_TRUE(jobs_->Cancel(name, "no longer wanted").ok());
    on_memory_ = nullptr;
  };
  const JobRecord job = StartLoad("a", "tiny");
  name = job.name;
  named.Notify();
  const JobRecord ended = Await(job);
  EXPECT_EQ(ended.state, State::kCancelled) << ErrorOf(ended);
  v1::LoadModelMetadata metadata;
  ASSERT_TRUE(metadata.ParseFromString(ended.metadata));
  EXPECT_EQ(metadata.phase(), v1::LoadModelMetadata::PHASE_READING) << "it did not read to the end";
  EXPECT_EQ(StateOf("a"), v1::Model::STATE_UNSPECIFIED);
  EXPECT_TRUE(registry_->ListModels()->empty());
  EXPECT_EQ(Await(StartLoad("a", "tiny")).state, State::kSucceeded);
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
