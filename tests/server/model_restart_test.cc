// What a start of the server takes up of models that were loaded, and of loads and unloads that were not done.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "server/model_jobs.h"
#include "tests/server/model_jobs_fixture.h"

namespace trimtab {
namespace {

using ::testing::HasSubstr;
using State = JobRecord::State;
using ModelRestartTest = ModelJobsTest;

TEST_F(ModelRestartTest, ARememberedModelThatFailsIsListedWithItsError) {
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

TEST_F(ModelRestartTest, AModelThatEndsServersIsGivenUp) {
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

TEST_F(ModelRestartTest, ALoadAndAnUnloadAreResumedAfterADeath) {
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

}  // namespace
}  // namespace trimtab
