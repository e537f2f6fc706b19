// What the registry keeps of objectives: creation, fits, revisions, deletion.
#include "server/registry/sqlite_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/server/registry/registry_fixture.h"

namespace trimtab {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ObjectiveState = ObjectiveRecord::State;
using JobState = JobRecord::State;

class RegistryObjectivesTest : public SqliteRegistryTest {};

TEST_F(RegistryObjectivesTest, KeepsAnObjectiveAndItsJob) {
  const absl::StatusOr<Registry::Creation> creation =
      registry_->CreateObjective(MakeObjective("calm", "r1", "h1"), MakeFitJob("1", "calm"));
  ASSERT_TRUE(creation.ok()) << creation.status();
  EXPECT_TRUE(creation->created);
  EXPECT_EQ(creation->objective.uid.size(), 32u);
  Reopen();
  const absl::StatusOr<ObjectiveRecord> stored = registry_->GetObjective(TestObjectiveName("calm"));
  ASSERT_TRUE(stored.ok()) << stored.status();
  const ObjectiveRecord wanted = MakeObjective("calm", "r1", "h1");
  EXPECT_EQ(stored->uid, creation->objective.uid);
  EXPECT_EQ(stored->request_id, "r1");
  EXPECT_EQ(stored->request_hash, "h1");
  EXPECT_EQ(stored->state, ObjectiveState::kCreating);
  EXPECT_EQ(stored->display_name, wanted.display_name);
  EXPECT_EQ(stored->description, wanted.description);
  EXPECT_EQ(stored->method, wanted.method);
  EXPECT_EQ(stored->method_config, wanted.method_config);
  EXPECT_EQ(stored->pairs, wanted.pairs);
  EXPECT_EQ(stored->pairs_hash, wanted.pairs_hash);
  EXPECT_EQ(stored->pair_count, 50);
  EXPECT_EQ(stored->held_out_count, 30);
  EXPECT_EQ(stored->default_strength, std::nullopt);
  EXPECT_EQ(stored->max_strength, 0.5f);
  EXPECT_EQ(stored->active_revision, 0);
  EXPECT_EQ(stored->model_fingerprint, "fingerprint");
  EXPECT_EQ(stored->operation, "operations/1");
  EXPECT_FALSE(stored->etag.empty());
  EXPECT_EQ(stored->create_time, clock_.Now());
  const absl::StatusOr<JobRecord> job = registry_->GetJob("operations/1");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state, JobState::kQueued);
  EXPECT_EQ(job->target, stored->name);
  EXPECT_EQ(job->request, "request");
  EXPECT_EQ(job->metadata, "queued");
  EXPECT_EQ(job->end_time, absl::InfinitePast());
}

TEST_F(RegistryObjectivesTest, CreatingAgainWithTheSameRequestReturnsTheFirst) {
  const ObjectiveRecord first =
      registry_->CreateObjective(MakeObjective("calm", "r1", "h1"), MakeFitJob("1", "calm"))->objective;
  const absl::StatusOr<Registry::Creation> again =
      registry_->CreateObjective(MakeObjective("calm", "r1", "h1"), MakeFitJob("2", "calm"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(again->created);
  EXPECT_EQ(again->objective.uid, first.uid);
  EXPECT_EQ(again->objective.operation, "operations/1");
  EXPECT_EQ(again->objective.pairs, first.pairs);
  EXPECT_EQ(registry_->GetJob("operations/2").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(registry_->revision(), 1);
}

TEST_F(RegistryObjectivesTest, CreatingAgainWithoutTheSameRequestIsRefused) {
  registry_->CreateObjective(MakeObjective("calm", "r1", "h1"), MakeFitJob("1", "calm")).IgnoreError();
  for (const char* request_id : {"", "r2"}) {
    const absl::Status status =
        registry_->CreateObjective(MakeObjective("calm", request_id, "h1"), MakeFitJob("2", "calm")).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists) << request_id;
    EXPECT_EQ(Reason(status), kObjectiveExists);
  }
}

TEST_F(RegistryObjectivesTest, OneRequestIdMeansOneRequest) {
  registry_->CreateObjective(MakeObjective("calm", "r1", "h1"), MakeFitJob("1", "calm")).IgnoreError();
  for (const ObjectiveRecord& other : {MakeObjective("calm", "r1", "h2"), MakeObjective("wild", "r1", "h1")}) {
    const absl::Status status = registry_->CreateObjective(other, MakeFitJob("2", "wild")).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    ASSERT_EQ(GetErrorDetail(status).violations.size(), 1u);
    EXPECT_EQ(GetErrorDetail(status).violations[0].field, "request_id");
  }
}

TEST_F(RegistryObjectivesTest, ADeletedObjectivesRequestIdIsFreeAgain) {
  const ObjectiveRecord first =
      registry_->CreateObjective(MakeObjective("calm", "r1", "h1"), MakeFitJob("1", "calm"))->objective;
  ASSERT_TRUE(registry_->DeleteObjective(first.name, "").ok());
  const absl::StatusOr<Registry::Creation> again =
      registry_->CreateObjective(MakeObjective("calm", "r1", "h1"), MakeFitJob("2", "calm"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->created);
  EXPECT_NE(again->objective.uid, first.uid);
  EXPECT_NE(again->objective.etag, first.etag);
}

TEST_F(RegistryObjectivesTest, FailedCreationLeavesNothing) {
  Create("calm");
  // The job's name is taken: the objective must not stay either.
  EXPECT_FALSE(registry_->CreateObjective(MakeObjective("wild"), MakeFitJob("calm", "wild")).ok());
  EXPECT_EQ(Reason(registry_->GetObjective(TestObjectiveName("wild")).status()), kObjectiveNotFound);
  EXPECT_EQ(registry_->revision(), 1);
  EXPECT_EQ(registry_->ListAudit(0, 10)->size(), 1u);
}

TEST_F(RegistryObjectivesTest, MissingNamesAreNotFound) {
  EXPECT_EQ(Reason(registry_->GetObjective("x").status()), kObjectiveNotFound);
  EXPECT_EQ(Reason(registry_->UpdateObjective(MakeObjective("x"), "").status()), kObjectiveNotFound);
  EXPECT_EQ(Reason(registry_->DeleteObjective("x", "")), kObjectiveNotFound);
  EXPECT_EQ(Reason(registry_->GetRevision("x", 1).status()), kObjectiveNotFound);
  EXPECT_EQ(Reason(registry_->ListRevisions("x", 0, 1).status()), kObjectiveNotFound);
  EXPECT_EQ(Reason(registry_->ListAttributions("x", 1, -1, 1).status()), kObjectiveNotFound);
  EXPECT_EQ(Reason(registry_->GetJob("x").status()), kResourceNotFound);
  EXPECT_EQ(Reason(registry_->UpdateJob(MakeDriftJob("x"))), kResourceNotFound);
  EXPECT_EQ(Reason(registry_->RequestJobCancel("x")), kResourceNotFound);
  EXPECT_EQ(Reason(registry_->DeleteJob("x")), kResourceNotFound);
  EXPECT_EQ(Reason(registry_->SavePartial("x", "k", "v")), kResourceNotFound);
  EXPECT_EQ(*registry_->LoadPartial("x", "k"), std::nullopt);
  EXPECT_EQ(Reason(registry_->GetDriftReport("x").status()), kResourceNotFound);
  EXPECT_EQ(Reason(registry_->DeleteDriftReport("x")), kResourceNotFound);
  const ObjectiveRecord calm = Create("calm");
  EXPECT_EQ(Reason(registry_->GetRevision(calm.name, 1).status()), kRevisionNotFound);
  EXPECT_EQ(Reason(registry_->ListAttributions(calm.name, 1, -1, 1).status()), kRevisionNotFound);
  ObjectiveRecord promoted = calm;
  promoted.active_revision = 7;
  EXPECT_EQ(Reason(registry_->UpdateObjective(promoted, "").status()), kRevisionNotFound);
  EXPECT_THAT(observer_.failures, IsEmpty());
}

TEST_F(RegistryObjectivesTest, UpdatesWhatMayChange) {
  ObjectiveRecord objective = Create("calm");
  const std::string etag = objective.etag;
  clock_.Advance(absl::Seconds(5));
  objective.display_name = "Calmer";
  objective.description = "";
  objective.default_strength = 0.05f;
  objective.max_strength = std::nullopt;
  objective.state = ObjectiveState::kDisabled;
  objective.method = "other";
  const absl::StatusOr<ObjectiveRecord> updated = registry_->UpdateObjective(objective, etag);
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_NE(updated->etag, etag);
  EXPECT_EQ(updated->update_time, clock_.Now());
  EXPECT_EQ(updated->pairs, objective.pairs);
  const ObjectiveRecord stored = *registry_->GetObjective(objective.name);
  EXPECT_EQ(stored.etag, updated->etag);
  EXPECT_EQ(stored.display_name, "Calmer");
  EXPECT_EQ(stored.description, "");
  EXPECT_EQ(stored.default_strength, 0.05f);
  EXPECT_EQ(stored.max_strength, std::nullopt);
  EXPECT_EQ(stored.state, ObjectiveState::kDisabled);
  EXPECT_EQ(stored.method, "grains");
  EXPECT_EQ(stored.create_time, clock_.Now() - absl::Seconds(5));
}

TEST_F(RegistryObjectivesTest, AStaleEtagIsRefused) {
  const ObjectiveRecord first = Create("calm");
  const ObjectiveRecord second = *registry_->UpdateObjective(first, first.etag);
  const absl::Status update = registry_->UpdateObjective(first, first.etag).status();
  EXPECT_EQ(update.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(Reason(update), kEtagMismatch);
  EXPECT_EQ(Reason(registry_->DeleteObjective(first.name, first.etag)), kEtagMismatch);
  EXPECT_TRUE(registry_->DeleteObjective(first.name, second.etag).ok());
}

TEST_F(RegistryObjectivesTest, CommitsAFit) {
  const ObjectiveRecord objective = Create("calm");
  ASSERT_TRUE(registry_->SavePartial("operations/calm", "pair/0", "partial").ok());
  clock_.Advance(absl::Minutes(2));
  const ObjectiveRecord fitted = Fit(objective, "calm");
  EXPECT_EQ(fitted.state, ObjectiveState::kActive);
  EXPECT_EQ(fitted.active_revision, 1);
  EXPECT_NE(fitted.etag, objective.etag);
  Reopen();
  const RevisionRecord revision = *registry_->GetRevision(objective.name, 1);
  EXPECT_EQ(revision.objective, objective.name);
  EXPECT_EQ(revision.revision, 1);
  EXPECT_EQ(revision.digest, "d1");
  EXPECT_EQ(revision.vector, MakeRevision("calm", "").vector);
  EXPECT_EQ(revision.summary, "summary");
  EXPECT_EQ(revision.create_time, clock_.Now());
  const JobRecord job = *registry_->GetJob("operations/calm");
  EXPECT_EQ(job.state, JobState::kSucceeded);
  EXPECT_EQ(job.result, "result");
  EXPECT_EQ(job.metadata, "done");
  EXPECT_EQ(job.end_time, clock_.Now());
  EXPECT_EQ(*registry_->LoadPartial("operations/calm", "pair/0"), std::nullopt);
  EXPECT_THAT(*registry_->UnfinishedJobs(), IsEmpty());
}

TEST_F(RegistryObjectivesTest, AFitMayBringADriftReport) {
  const ObjectiveRecord objective = Create("calm");
  const DriftRecord report = {.name = "models/m/driftReports/r", .report = "bytes"};
  // All or nothing: a commit that is refused leaves no report.
  EXPECT_FALSE(registry_->CommitFit("another", MakeRevision("calm", "d"), {}, MakeFitJob("calm", "calm"), report).ok());
  EXPECT_FALSE(registry_->GetDriftReport(report.name).ok());
  ASSERT_TRUE(
      registry_->CommitFit(objective.uid, MakeRevision("calm", "d"), {}, MakeFitJob("calm", "calm"), report).ok());
  Reopen();
  EXPECT_EQ(registry_->GetDriftReport(report.name)->report, "bytes");
}

TEST_F(RegistryObjectivesTest, ListsRevisionsAndAttributionsByPages) {
  const ObjectiveRecord objective = Create("calm");
  Fit(objective, "calm", "d1");
  JobRecord refit = MakeFitJob("refit", "calm");
  registry_->CreateJob(refit).IgnoreError();
  const absl::StatusOr<ObjectiveRecord> second =
      registry_->CommitFit(objective.uid, MakeRevision("calm", "d2"), {}, refit);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->active_revision, 2);
  const std::vector<RevisionRecord> first_page = *registry_->ListRevisions(objective.name, 0, 1);
  ASSERT_EQ(first_page.size(), 1u);
  EXPECT_EQ(first_page[0].digest, "d1");
  EXPECT_EQ(first_page[0].vector, "");
  const std::vector<RevisionRecord> rest = *registry_->ListRevisions(objective.name, 1, 10);
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0].digest, "d2");
  const std::vector<AttributionRecord> page = *registry_->ListAttributions(objective.name, 1, 0, 1);
  ASSERT_EQ(page.size(), 1u);
  EXPECT_EQ(page[0].pair_index, 1);
  EXPECT_EQ(page[0].attribution, "a1");
  EXPECT_EQ(registry_->ListAttributions(objective.name, 1, -1, 10)->size(), 3u);
  EXPECT_THAT(*registry_->ListAttributions(objective.name, 2, -1, 10), IsEmpty());
  // Rolling back is promoting an earlier revision.
  ObjectiveRecord promoted = *second;
  promoted.active_revision = 1;
  EXPECT_EQ(registry_->UpdateObjective(promoted, second->etag)->active_revision, 1);
}

TEST_F(RegistryObjectivesTest, AFitOfADisabledObjectiveLeavesItDisabled) {
  ObjectiveRecord objective = Create("calm");
  objective.state = ObjectiveState::kDisabled;
  registry_->UpdateObjective(objective, "").IgnoreError();
  EXPECT_EQ(Fit(objective, "calm").state, ObjectiveState::kDisabled);
}

TEST_F(RegistryObjectivesTest, AFitOfADeletedObjectiveIsRefused) {
  const ObjectiveRecord first = Create("calm");
  ASSERT_TRUE(registry_->DeleteObjective(first.name, "").ok());
  EXPECT_TRUE(registry_->GetJob("operations/calm")->cancel_requested);
  EXPECT_EQ(registry_->GetJob("operations/calm")->state, JobState::kQueued);
  registry_->CreateObjective(MakeObjective("calm"), MakeFitJob("2", "calm")).IgnoreError();
  const std::string uid = registry_->GetObjective(first.name)->uid;
  const absl::Status old =
      registry_->CommitFit(first.uid, MakeRevision("calm", "d"), {}, MakeFitJob("calm", "calm")).status();
  EXPECT_EQ(Reason(old), kObjectiveNotFound);
  // Nor may the old job write into the new objective.
  const absl::Status crossed =
      registry_->CommitFit(uid, MakeRevision("calm", "d"), {}, MakeFitJob("calm", "calm")).status();
  EXPECT_EQ(Reason(crossed), kObjectiveNotFound);
  JobRecord cancelled = MakeFitJob("calm", "calm");
  cancelled.state = JobState::kCancelled;
  cancelled.error = "error";
  EXPECT_TRUE(registry_->CommitFitFailure(first.uid, cancelled).ok());
  EXPECT_EQ(registry_->GetJob("operations/calm")->state, JobState::kCancelled);
  EXPECT_EQ(registry_->GetObjective(first.name)->state, ObjectiveState::kCreating);
}

TEST_F(RegistryObjectivesTest, DeletingRemovesRevisionsAndAttributions) {
  const ObjectiveRecord objective = Create("calm");
  Fit(objective, "calm");
  ASSERT_TRUE(registry_->DeleteObjective(objective.name, "").ok());
  registry_.reset();
  const std::unique_ptr<Database> database = *Database::Open(path_);
  for (const char* sql :
       {"SELECT count(*) FROM revision", "SELECT count(*) FROM attribution", "SELECT count(*) FROM objective_pairs"}) {
    Statement select = database->Prepare(sql);
    ASSERT_TRUE(*select.Step());
    EXPECT_EQ(select.Int(0), 0) << sql;
  }
}

TEST_F(RegistryObjectivesTest, AFailedFitFailsTheObjective) {
  const ObjectiveRecord objective = Create("calm");
  JobRecord failed = MakeFitJob("calm", "calm");
  failed.state = JobState::kFailed;
  failed.error = "why";
  ASSERT_TRUE(registry_->CommitFitFailure(objective.uid, failed).ok());
  const ObjectiveRecord stored = *registry_->GetObjective(objective.name);
  EXPECT_EQ(stored.state, ObjectiveState::kFailed);
  EXPECT_EQ(stored.error, "why");
  EXPECT_EQ(registry_->GetJob(failed.name)->error, "why");
  // A failed job does not fail again, and a job in another state is not a failure.
  EXPECT_EQ(registry_->CommitFitFailure(objective.uid, failed).code(), absl::StatusCode::kFailedPrecondition);
  failed.state = JobState::kSucceeded;
  EXPECT_EQ(registry_->CommitFitFailure(objective.uid, failed).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(RegistryObjectivesTest, AFailedRefitLeavesTheActiveRevision) {
  const ObjectiveRecord fitted = Fit(Create("calm"), "calm");
  JobRecord refit = MakeFitJob("refit", "calm");
  registry_->CreateJob(refit).IgnoreError();
  refit.state = JobState::kFailed;
  refit.error = "why";
  ASSERT_TRUE(registry_->CommitFitFailure(fitted.uid, refit).ok());
  const ObjectiveRecord stored = *registry_->GetObjective(fitted.name);
  EXPECT_EQ(stored.state, ObjectiveState::kActive);
  EXPECT_EQ(stored.active_revision, 1);
  EXPECT_EQ(stored.error, "");
}

TEST_F(RegistryObjectivesTest, ACommittedFitIsNotCommittedTwice) {
  const ObjectiveRecord objective = Create("calm");
  Fit(objective, "calm");
  const absl::Status again =
      registry_->CommitFit(objective.uid, MakeRevision("calm", "d2"), {}, MakeFitJob("calm", "calm")).status();
  EXPECT_EQ(again.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(registry_->ListRevisions(objective.name, 0, 10)->size(), 1u);
}

TEST_F(RegistryObjectivesTest, ListsObjectivesOfAModelInOrder) {
  for (const char* id : {"b", "a-1", "a", "c"}) Create(id);
  ObjectiveRecord other = MakeObjective("a");
  other.name = "models/small2/objectives/a";
  registry_->CreateObjective(other, MakeFitJob("other", "a")).IgnoreError();
  const std::vector<ObjectiveRecord> first = *registry_->ListObjectives(kTestModel, {.after = "", .limit = 2});
  EXPECT_THAT(Names(first), ElementsAre(TestObjectiveName("a"), TestObjectiveName("a-1")));
  EXPECT_EQ(first[0].pairs, "");
  EXPECT_THAT(Names(*registry_->ListObjectives(kTestModel, {.after = first[1].name, .limit = 9})),
              ElementsAre(TestObjectiveName("b"), TestObjectiveName("c")));
  EXPECT_THAT(*registry_->ListObjectives(kTestModel, {.after = "", .limit = -1}), IsEmpty());
  EXPECT_THAT(*registry_->ListObjectives("models/none", {}), IsEmpty());
}

}  // namespace
}  // namespace trimtab
