#include "server/registry/sqlite_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <string>
#include <thread>
#include <vector>

#include "server/base/error.h"
#include "tests/server/registry/records.h"

namespace trimtab {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ObjectiveState = ObjectiveRecord::State;
using JobState = JobRecord::State;

std::string Reason(const absl::Status& status) { return GetErrorDetail(status).reason; }
std::string Message(const absl::Status& status) { return std::string(status.message()); }

template <typename Record>
std::vector<std::string> Names(const std::vector<Record>& records) {
  std::vector<std::string> names;
  for (const Record& record : records) names.push_back(record.name);
  return names;
}

// Keeps what it is told.
class RecordingObserver final : public RegistryObserver {
 public:
  void OnChange(std::string_view action) override {
    EXPECT_THAT(kRegistryActions, testing::Contains(action));
    changes.emplace_back(action);
  }
  void OnStorageFailure(std::string_view operation, const absl::Status& error) override {
    failures.push_back(absl::StrCat(std::string(operation), " ", absl::StatusCodeToString(error.code())));
  }
  std::vector<std::string> changes, failures;
};

class SqliteRegistryTest : public testing::Test {
 protected:
  SqliteRegistryTest()
      : path_(NewRegistryPath(testing::TempDir(),
                              testing::UnitTest::GetInstance()->current_test_info()->name() + std::string(".db"))) {
    Reopen();
  }

  void Reopen() {
    registry_.reset();
    absl::StatusOr<std::unique_ptr<SqliteRegistry>> opened = SqliteRegistry::Open(path_, clock_, &observer_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    registry_ = *std::move(opened);
  }

  ObjectiveRecord Create(std::string_view id) {
    return registry_->CreateObjective(MakeObjective(id), MakeFitJob(id, id))->objective;
  }
  ObjectiveRecord Fit(const ObjectiveRecord& objective, std::string_view id, std::string_view digest = "d1") {
    JobRecord job = MakeFitJob(id, id);
    job.result = "result";
    job.metadata = "done";
    return *registry_->CommitFit(objective.uid, MakeRevision(id, digest), {{0, "a0"}, {1, "a1"}, {2, "a2"}}, job);
  }

  const std::string path_;
  ManualClock clock_;
  RecordingObserver observer_;
  std::unique_ptr<SqliteRegistry> registry_;
};

TEST_F(SqliteRegistryTest, KeepsAnObjectiveAndItsJob) {
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

TEST_F(SqliteRegistryTest, CreatingAgainWithTheSameRequestReturnsTheFirst) {
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

TEST_F(SqliteRegistryTest, CreatingAgainWithoutTheSameRequestIsRefused) {
  registry_->CreateObjective(MakeObjective("calm", "r1", "h1"), MakeFitJob("1", "calm")).IgnoreError();
  for (const char* request_id : {"", "r2"}) {
    const absl::Status status =
        registry_->CreateObjective(MakeObjective("calm", request_id, "h1"), MakeFitJob("2", "calm")).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists) << request_id;
    EXPECT_EQ(Reason(status), kObjectiveExists);
  }
}

TEST_F(SqliteRegistryTest, OneRequestIdMeansOneRequest) {
  registry_->CreateObjective(MakeObjective("calm", "r1", "h1"), MakeFitJob("1", "calm")).IgnoreError();
  for (const ObjectiveRecord& other : {MakeObjective("calm", "r1", "h2"), MakeObjective("wild", "r1", "h1")}) {
    const absl::Status status = registry_->CreateObjective(other, MakeFitJob("2", "wild")).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    ASSERT_EQ(GetErrorDetail(status).violations.size(), 1u);
    EXPECT_EQ(GetErrorDetail(status).violations[0].field, "request_id");
  }
}

TEST_F(SqliteRegistryTest, ADeletedObjectivesRequestIdIsFreeAgain) {
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

TEST_F(SqliteRegistryTest, FailedCreationLeavesNothing) {
  Create("calm");
  // The job's name is taken: the objective must not stay either.
  EXPECT_FALSE(registry_->CreateObjective(MakeObjective("wild"), MakeFitJob("calm", "wild")).ok());
  EXPECT_EQ(Reason(registry_->GetObjective(TestObjectiveName("wild")).status()), kObjectiveNotFound);
  EXPECT_EQ(registry_->revision(), 1);
  EXPECT_EQ(registry_->ListAudit(0, 10)->size(), 1u);
}

TEST_F(SqliteRegistryTest, MissingNamesAreNotFound) {
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

TEST_F(SqliteRegistryTest, UpdatesWhatMayChange) {
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

TEST_F(SqliteRegistryTest, AStaleEtagIsRefused) {
  const ObjectiveRecord first = Create("calm");
  const ObjectiveRecord second = *registry_->UpdateObjective(first, first.etag);
  const absl::Status update = registry_->UpdateObjective(first, first.etag).status();
  EXPECT_EQ(update.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(Reason(update), kEtagMismatch);
  EXPECT_EQ(Reason(registry_->DeleteObjective(first.name, first.etag)), kEtagMismatch);
  EXPECT_TRUE(registry_->DeleteObjective(first.name, second.etag).ok());
}

TEST_F(SqliteRegistryTest, CommitsAFit) {
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

TEST_F(SqliteRegistryTest, AFitMayBringADriftReport) {
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

TEST_F(SqliteRegistryTest, ListsRevisionsAndAttributionsByPages) {
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

TEST_F(SqliteRegistryTest, AFitOfADisabledObjectiveLeavesItDisabled) {
  ObjectiveRecord objective = Create("calm");
  objective.state = ObjectiveState::kDisabled;
  registry_->UpdateObjective(objective, "").IgnoreError();
  EXPECT_EQ(Fit(objective, "calm").state, ObjectiveState::kDisabled);
}

TEST_F(SqliteRegistryTest, AFitOfADeletedObjectiveIsRefused) {
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

TEST_F(SqliteRegistryTest, DeletingRemovesRevisionsAndAttributions) {
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

TEST_F(SqliteRegistryTest, AFailedFitFailsTheObjective) {
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

TEST_F(SqliteRegistryTest, AFailedRefitLeavesTheActiveRevision) {
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

TEST_F(SqliteRegistryTest, ACommittedFitIsNotCommittedTwice) {
  const ObjectiveRecord objective = Create("calm");
  Fit(objective, "calm");
  const absl::Status again =
      registry_->CommitFit(objective.uid, MakeRevision("calm", "d2"), {}, MakeFitJob("calm", "calm")).status();
  EXPECT_EQ(again.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(registry_->ListRevisions(objective.name, 0, 10)->size(), 1u);
}

TEST_F(SqliteRegistryTest, ListsObjectivesOfAModelInOrder) {
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

TEST_F(SqliteRegistryTest, JobsAreIdempotentByKindAndRequestId) {
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

TEST_F(SqliteRegistryTest, JobProgressIsKeptButNoChange) {
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

TEST_F(SqliteRegistryTest, ACancelRequestIsNotTakenBack) {
  JobRecord job = *registry_->CreateJob(MakeDriftJob("1"));
  ASSERT_TRUE(registry_->RequestJobCancel(job.name).ok());
  ASSERT_TRUE(registry_->RequestJobCancel(job.name).ok());
  EXPECT_EQ(registry_->revision(), 2);
  job.state = JobState::kRunning;
  ASSERT_TRUE(registry_->UpdateJob(job).ok());
  EXPECT_TRUE(registry_->GetJob(job.name)->cancel_requested);
}

TEST_F(SqliteRegistryTest, AnEndedJobKeepsItsEnd) {
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

TEST_F(SqliteRegistryTest, PartialResultsAreReplacedAndSurvive) {
  registry_->CreateJob(MakeDriftJob("1")).IgnoreError();
  ASSERT_TRUE(registry_->SavePartial("operations/1", "a", "1").ok());
  ASSERT_TRUE(registry_->SavePartial("operations/1", "a", std::string("\0x", 2)).ok());
  ASSERT_TRUE(registry_->SavePartial("operations/1", "b", "").ok());
  Reopen();
  EXPECT_EQ(*registry_->LoadPartial("operations/1", "a"), std::string("\0x", 2));
  EXPECT_EQ(*registry_->LoadPartial("operations/1", "b"), "");
  EXPECT_EQ(*registry_->LoadPartial("operations/1", "c"), std::nullopt);
}

TEST_F(SqliteRegistryTest, UnfinishedJobsComeInOrderOfCreation) {
  for (const char* id : {"z", "b", "m"}) registry_->CreateJob(MakeDriftJob(id)).IgnoreError();
  EXPECT_THAT(Names(*registry_->UnfinishedJobs()), ElementsAre("operations/z", "operations/b", "operations/m"));
}

TEST_F(SqliteRegistryTest, CommitsDriftReports) {
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

TEST_F(SqliteRegistryTest, EveryChangeIsAuditedAndCounted) {
  const ObjectiveRecord objective = Create("calm");
  registry_->UpdateObjective(objective, "").IgnoreError();
  registry_->UpdateObjective(objective, "stale").IgnoreError();
  Fit(objective, "calm");
  registry_->DeleteObjective(objective.name, "").IgnoreError();
  Reopen();
  EXPECT_EQ(registry_->revision(), 4);
  const std::vector<AuditRecord> audit = *registry_->ListAudit(0, 10);
  std::vector<std::string> actions;
  for (const AuditRecord& record : audit) {
    actions.push_back(absl::StrCat(record.id, " ", record.action));
    EXPECT_EQ(record.resource, objective.name);
    EXPECT_EQ(record.time, clock_.Now());
    EXPECT_THAT(record.detail, HasSubstr(objective.uid));
  }
  EXPECT_THAT(actions, ElementsAre("1 create_objective", "2 update_objective", "3 commit_fit", "4 delete_objective"));
  EXPECT_EQ(registry_->ListAudit(3, 10)->size(), 1u);
  EXPECT_THAT(observer_.changes, ElementsAre("create_objective", "update_objective", "commit_fit", "delete_objective"));
}

TEST_F(SqliteRegistryTest, TheSecretSurvives) {
  const std::string secret = registry_->secret();
  EXPECT_EQ(secret.size(), 32u);
  Reopen();
  EXPECT_EQ(registry_->secret(), secret);
}

TEST_F(SqliteRegistryTest, ASecondServerIsRefused) {
  const absl::Status status = SqliteRegistry::Open(path_, clock_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), HasSubstr("another server has this registry open"));
  EXPECT_TRUE(registry_->GetObjective("x").status().code() == absl::StatusCode::kNotFound);
}

TEST_F(SqliteRegistryTest, FilesArePrivate) {
  for (const char* suffix : {"", "-wal", "-shm", ".lock"}) {
    struct stat info {};
    ASSERT_EQ(stat((path_ + suffix).c_str(), &info), 0) << suffix;
    EXPECT_EQ(info.st_mode & 0777, 0600) << suffix;
  }
}

TEST_F(SqliteRegistryTest, AFailingDiskIsUnavailableAndNothingIsHalfDone) {
  const ObjectiveRecord kept = Create("kept");
  const rlimit before = [] {
    rlimit limit{};
    getrlimit(RLIMIT_FSIZE, &limit);
    return limit;
  }();
  struct stat wal {};
  ASSERT_EQ(stat((path_ + "-wal").c_str(), &wal), 0);
  signal(SIGXFSZ, SIG_IGN);
  ObjectiveRecord large = MakeObjective("large");
  large.pairs = std::string(4 << 20, 'x');
  // The log may grow by a few pages and then no more: a write fails in the middle of the transaction.
  const rlimit small{static_cast<rlim_t>(wal.st_size + 20000), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = registry_->CreateObjective(large, MakeFitJob("large", "large")).status();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(Reason(status), kStorageUnavailable);
  EXPECT_THAT(observer_.failures, ElementsAre("create_objective UNAVAILABLE"));
  EXPECT_EQ(registry_->revision(), 1);
  EXPECT_EQ(Reason(registry_->GetObjective(large.name).status()), kObjectiveNotFound);
  EXPECT_EQ(registry_->GetJob("operations/large").status().code(), absl::StatusCode::kNotFound);
  // The same change succeeds once there is room, also after a restart.
  EXPECT_TRUE(registry_->CreateObjective(large, MakeFitJob("large", "large")).ok());
  Reopen();
  EXPECT_EQ(registry_->GetObjective(large.name)->pairs, large.pairs);
  EXPECT_EQ(registry_->GetObjective(kept.name)->uid, kept.uid);
  EXPECT_EQ(registry_->ListAudit(0, 10)->size(), 2u);
}

TEST_F(SqliteRegistryTest, ThreadsShareIt) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 10; ++i) {
        const std::string id = absl::StrCat("o", t, "-", i);
        const ObjectiveRecord objective = Create(id);
        Fit(objective, id);
        EXPECT_TRUE(registry_->GetRevision(objective.name, 1).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(registry_->revision(), 80);
  EXPECT_EQ(registry_->ListObjectives(kTestModel, {})->size(), 40u);
}

}  // namespace
}  // namespace trimtab
