// What the registry keeps of models that were loaded at run time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/server/registry/registry_fixture.h"

namespace trimtab {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using JobState = JobRecord::State;

class RegistryModelsTest : public SqliteRegistryTest {
 protected:
  JobRecord CreateJob(const std::string& id, const std::string& kind) {
    JobRecord job = MakeDriftJob(id);
    job.kind = kind;
    job.target = "models/small";
    EXPECT_TRUE(registry_->CreateJob(job).ok());
    job.result = "result";
    return job;
  }
  static ModelRecord Model(const std::string& path) {
    return {.name = "models/small", .path = path, .precision = "file", .kv_cache_mib = 64, .fingerprint = "f"};
  }
};

TEST_F(RegistryModelsTest, AModelIsRememberedUntilItIsUnloaded) {
  const JobRecord load = CreateJob("1", "load");
  ASSERT_TRUE(registry_->CommitModelLoad(Model("a.gguf"), load).ok());
  Reopen();
  const std::vector<ModelRecord> models = *registry_->ListModels();
  ASSERT_THAT(Names(models), ElementsAre("models/small"));
  EXPECT_EQ(models[0].path, "a.gguf");
  EXPECT_EQ(models[0].precision, "file");
  EXPECT_EQ(models[0].kv_cache_mib, 64);
  EXPECT_EQ(models[0].fingerprint, "f");
  EXPECT_EQ(models[0].create_time, clock_.Now());
  EXPECT_EQ(registry_->GetJob(load.name)->state, JobState::kSucceeded);
  EXPECT_EQ(registry_->GetJob(load.name)->result, "result");
  EXPECT_EQ(registry_->CommitModelLoad(Model("b.gguf"), load).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ((*registry_->ListModels())[0].path, "a.gguf");

  ASSERT_TRUE(registry_->CommitModelLoad(Model("b.gguf"), CreateJob("2", "load")).ok());
  EXPECT_EQ((*registry_->ListModels())[0].path, "b.gguf");

  ASSERT_TRUE(registry_->CommitModelUnload("models/small", CreateJob("3", "unload")).ok());
  EXPECT_THAT(*registry_->ListModels(), IsEmpty());
  EXPECT_EQ(registry_->GetJob("operations/3")->state, JobState::kSucceeded);
  // One that was not remembered.
  EXPECT_TRUE(registry_->CommitModelUnload("models/small", CreateJob("4", "unload")).ok());
  EXPECT_THAT(observer_.changes, ElementsAre("create_job", "commit_model_load", "create_job", "commit_model_load",
                                             "create_job", "commit_model_unload", "create_job", "commit_model_unload"));
}

TEST_F(RegistryModelsTest, StartsThatCameToNoEndAreCounted) {
  EXPECT_EQ(registry_->BeginModelStart("models/small").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(registry_->CommitModelLoad(Model("a.gguf"), CreateJob("1", "load")).ok());
  const int64_t revision = registry_->revision();
  EXPECT_EQ(*registry_->BeginModelStart("models/small"), 1);
  Reopen();
  EXPECT_EQ(*registry_->BeginModelStart("models/small"), 2);
  ASSERT_TRUE(registry_->EndModelStart("models/small").ok());
  EXPECT_EQ(*registry_->BeginModelStart("models/small"), 1);
  EXPECT_EQ(registry_->revision(), revision);
  ASSERT_TRUE(registry_->CommitModelLoad(Model("a.gguf"), CreateJob("2", "load")).ok());
  EXPECT_EQ(*registry_->BeginModelStart("models/small"), 1);
}

TEST_F(RegistryModelsTest, EarlierJobsAreFoundWithoutMakingOne) {
  JobRecord job = MakeDriftJob("1", "r1", "h1");
  EXPECT_FALSE(registry_->FindEarlierJob(job)->has_value());
  ASSERT_TRUE(registry_->CreateJob(job).ok());
  job.name = "operations/2";
  EXPECT_EQ((*registry_->FindEarlierJob(job))->name, "operations/1");
  job.request_hash = "h2";
  EXPECT_EQ(registry_->FindEarlierJob(job).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(registry_->FindEarlierJob(MakeDriftJob("3"))->has_value());
}

}  // namespace
}  // namespace trimtab
