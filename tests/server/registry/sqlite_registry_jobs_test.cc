// What the registry keeps of jobs and drift reports.
#include "server/registry/sqlite_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/server/registry/registry_fixture.h"

namespace trimtab {
namespace {

using ::testing::ElementsAre;
using JobState = JobRecord::State;

class RegistryJobsTest : public SqliteRegistryTest {};

TEST_F(RegistryJobsTest, JobsAreIdempotentByKindAndRequestId) {
  ASSERT_EQ(registry_->CreateJob(MakeDriftJob("1", "r1", "h1"))->name, "operations/1");
  EXPECT_EQ(registry_->CreateJob(MakeDriftJob("2", "r1", "h1"))->name, "operations/1");
  EXPECT_EQ(registry_->CreateJob(MakeDriftJob("2", "r1", "h2")).status().code(), absl::StatusCode::kInvalidArgument);
  JobRecord other_kind = MakeDriftJob("3", "r1", "h1");
  other_kind.kind = "import";
  EXPECT_EQ(registry_->CreateJob(other_kind)->name, "operations/3");
  EXPECT_EQ(registry_->CreateJob(MakeDriftJob("4"))->name, "operations/4");
  EXPECT_EQ(registry_->CreateJob(MakeDriftJob("5"))->name, "operations/5");
  EXPECT_THAT(Names(*registry_->ListJobs({.after = "operations/1", .limit = 2})),
              ElementsAre("operations/3", "operations/4"));
}

TEST_F(RegistryJobsTest, JobProgressIsKeptButNoChange) {
  JobRecord job = *registry_->CreateJob(MakeDriftJob("1"));
  job.state = JobState::kRunning;
  job.attempts = 1;
  ASSERT_TRUE(registry_->UpdateJob(job).ok());
  EXPECT_EQ(registry_->revision(), 2);
  clock_.Advance(absl::Seconds(1));
  job.metadata = "half";
  ASSERT_TRUE(registry_->UpdateJob(job).ok());
  EXPECT_EQ(registry_->revision(), 2);
  Reopen();
  const std::vector<JobRecord> unfinished = *registry_->UnfinishedJobs();
  ASSERT_EQ(unfinished.size(), 1u);
  EXPECT_EQ(unfinished[0].metadata, "half");
  EXPECT_EQ(unfinished[0].attempts, 1);
  EXPECT_EQ(unfinished[0].state, JobState::kRunning);
  EXPECT_EQ(unfinished[0].update_time, clock_.Now());
}

TEST_F(RegistryJobsTest, ACancelRequestIsNotTakenBack) {
  JobRecord job = *registry_->CreateJob(MakeDriftJob("1"));
  ASSERT_TRUE(registry_->RequestJobCancel(job.name).ok());
  ASSERT_TRUE(registry_->RequestJobCancel(job.name).ok());
  EXPECT_EQ(registry_->revision(), 2);
  job.state = JobState::kRunning;
  ASSERT_TRUE(registry_->UpdateJob(job).ok());
  EXPECT_TRUE(registry_->GetJob(job.name)->cancel_requested);
}

TEST_F(RegistryJobsTest, AnEndedJobKeepsItsEnd) {
  JobRecord job = *registry_->CreateJob(MakeDriftJob("1"));
  ASSERT_TRUE(registry_->SavePartial(job.name, "k", "v").ok());
  EXPECT_EQ(Reason(registry_->DeleteJob(job.name)), kOperationNotDone);
  job.state = JobState::kFailed;
  job.error = "why";
  ASSERT_TRUE(registry_->UpdateJob(job).ok());
  EXPECT_EQ(*registry_->LoadPartial(job.name, "k"), std::nullopt);
  EXPECT_EQ(registry_->SavePartial(job.name, "k", "v").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(registry_->RequestJobCancel(job.name).ok());
  EXPECT_FALSE(registry_->GetJob(job.name)->cancel_requested);
  job.metadata = "last";
  job.error = "other";
  ASSERT_TRUE(registry_->UpdateJob(job).ok());
  EXPECT_EQ(registry_->GetJob(job.name)->metadata, "last");
  EXPECT_EQ(registry_->GetJob(job.name)->error, "why");
  job.state = JobState::kRunning;
  EXPECT_EQ(registry_->UpdateJob(job).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(registry_->CommitDrift({.name = "report"}, job).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Reason(registry_->GetDriftReport("report").status()), kResourceNotFound);
  EXPECT_TRUE(registry_->DeleteJob(job.name).ok());
  EXPECT_EQ(registry_->GetJob(job.name).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(RegistryJobsTest, PartialResultsAreReplacedAndSurvive) {
  registry_->CreateJob(MakeDriftJob("1")).IgnoreError();
  ASSERT_TRUE(registry_->SavePartial("operations/1", "a", "1").ok());
  ASSERT_TRUE(registry_->SavePartial("operations/1", "a", std::string("\0x", 2)).ok());
  ASSERT_TRUE(registry_->SavePartial("operations/1", "b", "").ok());
  Reopen();
  EXPECT_EQ(*registry_->LoadPartial("operations/1", "a"), std::string("\0x", 2));
  EXPECT_EQ(*registry_->LoadPartial("operations/1", "b"), "");
  EXPECT_EQ(*registry_->LoadPartial("operations/1", "c"), std::nullopt);
}

TEST_F(RegistryJobsTest, UnfinishedJobsComeInOrderOfCreation) {
  for (const char* id : {"z", "b", "m"}) registry_->CreateJob(MakeDriftJob(id)).IgnoreError();
  EXPECT_THAT(Names(*registry_->UnfinishedJobs()), ElementsAre("operations/z", "operations/b", "operations/m"));
}

TEST_F(RegistryJobsTest, CommitsDriftReports) {
  for (const char* id : {"2", "1"}) {
    JobRecord job = *registry_->CreateJob(MakeDriftJob(id));
    job.result = "result";
    ASSERT_TRUE(registry_->CommitDrift({.name = job.target, .report = "report"}, job).ok());
  }
  Reopen();
  EXPECT_EQ(registry_->GetJob("operations/1")->state, JobState::kSucceeded);
  const std::vector<DriftRecord> reports = *registry_->ListDriftReports(kTestModel, {.after = "", .limit = 10});
  EXPECT_THAT(Names(reports), ElementsAre("models/small/driftReports/1", "models/small/driftReports/2"));
  EXPECT_EQ(registry_->GetDriftReport(reports[0].name)->report, "report");
  EXPECT_EQ(reports[0].create_time, clock_.Now());
  EXPECT_EQ(registry_->ListDriftReports(kTestModel, {.after = reports[0].name, .limit = 10})->size(), 1u);
  ASSERT_TRUE(registry_->DeleteDriftReport(reports[0].name).ok());
  EXPECT_EQ(Reason(registry_->GetDriftReport(reports[0].name).status()), kResourceNotFound);
}

}  // namespace
}  // namespace trimtab
