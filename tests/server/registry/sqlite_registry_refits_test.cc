// What comes after an objective's first fit: refits, curves, deletion of both.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/registry/sqlite_registry.h"
#include "tests/server/registry/registry_fixture.h"

namespace trimtab {
namespace {

using ObjectiveState = ObjectiveRecord::State;
using JobState = JobRecord::State;

class RegistryRefitsTest : public SqliteRegistryTest {
 protected:
  static JobRecord MakeRefitJob(std::string_view id, std::string_view request_id = "", std::string_view hash = "") {
    JobRecord job = MakeFitJob(id, "calm");
    job.kind = "refit";
    job.request_id = std::string(request_id);
    job.request_hash = std::string(hash);
    return job;
  }
  JobRecord MakeCurveJob(std::string_view id) {
    JobRecord job = MakeFitJob(id, "calm");
    job.kind = "curve";
    job.target += "/revisions/1";
    EXPECT_TRUE(registry_->CreateJob(job).ok());
    job.result = "result";
    return job;
  }
  // An objective with its first revision.
  ObjectiveRecord Fitted() { return Fit(Create("calm"), "calm"); }
};

TEST_F(RegistryRefitsTest, ARefitIsQueuedBesideTheObjective) {
  const ObjectiveRecord fitted = Fitted();
  const absl::StatusOr<JobRecord> job =
      registry_->BeginRefit(fitted.name, MakeRefitJob("r1"), "new pairs", fitted.etag);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(observer_.changes.back(), "refit_objective");
  Reopen();
  const ObjectiveRecord stored = *registry_->GetObjective(fitted.name);
  EXPECT_EQ(stored.state, ObjectiveState::kActive);
  EXPECT_EQ(stored.refit, "operations/r1");
  EXPECT_EQ(stored.etag, fitted.etag);
  EXPECT_EQ(stored.pairs, fitted.pairs);
  EXPECT_EQ(registry_->GetJob("operations/r1")->state, JobState::kQueued);
  EXPECT_EQ(registry_->GetJob("operations/r1")->objective_uid, fitted.uid);
  EXPECT_EQ(registry_->LoadPartial("operations/r1", Registry::kRefitPairs)->value(), "new pairs");
  EXPECT_EQ(registry_->UnfinishedJobs()->size(), 1u);
}

TEST_F(RegistryRefitsTest, OneFitAtATime) {
  const ObjectiveRecord creating = Create("calm");
  EXPECT_EQ(Reason(registry_->BeginRefit(creating.name, MakeRefitJob("r1"), "", "").status()), kObjectiveNotReady);
  Fit(creating, "calm");
  ASSERT_TRUE(registry_->BeginRefit(creating.name, MakeRefitJob("r1"), "", "").ok());
  EXPECT_EQ(Reason(registry_->BeginRefit(creating.name, MakeRefitJob("r2"), "", "").status()), kObjectiveNotReady);
  JobRecord failed = MakeRefitJob("r1");
  failed.state = JobState::kFailed;
  ASSERT_TRUE(registry_->CommitFitFailure(creating.uid, failed).ok());
  EXPECT_EQ(registry_->GetObjective(creating.name)->refit, "");
  EXPECT_TRUE(registry_->BeginRefit(creating.name, MakeRefitJob("r2"), "", "").ok());
  EXPECT_EQ(Reason(registry_->BeginRefit("models/small/objectives/none", MakeRefitJob("r3"), "", "").status()),
            kObjectiveNotFound);
}

TEST_F(RegistryRefitsTest, TheSameRequestIsQueuedOnce) {
  const ObjectiveRecord fitted = Fitted();
  ASSERT_TRUE(registry_->BeginRefit(fitted.name, MakeRefitJob("r1", "id", "h"), "", fitted.etag).ok());
  EXPECT_EQ(registry_->BeginRefit(fitted.name, MakeRefitJob("r2", "id", "h"), "", "")->name, "operations/r1");
  EXPECT_EQ(Reason(registry_->BeginRefit(fitted.name, MakeRefitJob("r2", "id", "h2"), "", "").status()), kFieldInvalid);
  EXPECT_EQ(registry_->GetJob("operations/r2").status().code(), absl::StatusCode::kNotFound);
  const absl::Status stale = registry_->BeginRefit(fitted.name, MakeRefitJob("r3"), "", "stale").status();
  EXPECT_EQ(Reason(stale), kEtagMismatch);
}

TEST_F(RegistryRefitsTest, TheEndOfARefitIsOneChange) {
  const ObjectiveRecord fitted = Fitted();
  ASSERT_TRUE(registry_->BeginRefit(fitted.name, MakeRefitJob("r1"), "p2", "").ok());
  RevisionRecord revision = MakeRevision("calm", "d2");
  revision.method = "caa";
  revision.method_config = "c2";
  revision.pairs_hash = "h2";
  const RefitRecord refit{.pairs = "p2", .pair_count = 7, .held_out_count = 3};
  ASSERT_TRUE(registry_->CommitFit(fitted.uid, revision, {{0, "b0"}}, MakeRefitJob("r1"), std::nullopt, refit).ok());
  Reopen();
  ObjectiveRecord stored = *registry_->GetObjective(fitted.name);
  EXPECT_EQ(stored.active_revision, 2);
  EXPECT_EQ(stored.method, "caa");
  EXPECT_EQ(stored.method_config, "c2");
  EXPECT_EQ(stored.pairs, "p2");
  EXPECT_EQ(stored.pairs_hash, "h2");
  EXPECT_EQ(stored.pair_count, 7);
  EXPECT_EQ(stored.held_out_count, 3);
  EXPECT_EQ(stored.refit, "");
  EXPECT_EQ(registry_->GetRevision(fitted.name, 1)->method, "grains");
  EXPECT_FALSE(registry_->LoadPartial("operations/r1", Registry::kRefitPairs)->has_value());

  // The active one stays if that is wanted, and the pairs without new ones.
  ASSERT_TRUE(registry_->BeginRefit(fitted.name, MakeRefitJob("r2"), "", "").ok());
  revision.digest = "d3";
  stored = *registry_->CommitFit(fitted.uid, revision, {}, MakeRefitJob("r2"), std::nullopt,
                                 RefitRecord{.keep_active = true});
  EXPECT_EQ(stored.active_revision, 2);
  EXPECT_EQ(stored.pairs, "p2");
  EXPECT_EQ(stored.pair_count, 7);
  EXPECT_EQ(registry_->ListRevisions(fitted.name, 0, 10)->size(), 3u);
}

TEST_F(RegistryRefitsTest, SwitchingOffAndOnIsAudited) {
  ObjectiveRecord objective = Fitted();
  objective.state = ObjectiveState::kDisabled;
  objective = *registry_->UpdateObjective(objective, objective.etag);
  EXPECT_EQ(observer_.changes.back(), "disable_objective");
  objective.state = ObjectiveState::kActive;
  ASSERT_TRUE(registry_->UpdateObjective(objective, objective.etag).ok());
  EXPECT_EQ(observer_.changes.back(), "enable_objective");
  EXPECT_EQ(registry_->ListAudit(0, 100)->back().action, "enable_objective");
}

TEST_F(RegistryRefitsTest, ACurveIsKeptWithItsRevision) {
  const ObjectiveRecord fitted = Fitted();
  EXPECT_EQ(registry_->GetRevision(fitted.name, 1)->curve, "");
  ASSERT_TRUE(registry_->CommitCurve(fitted.name, 1, "d1", "first", MakeCurveJob("c1")).ok());
  EXPECT_EQ(observer_.changes.back(), "commit_curve");
  Reopen();
  EXPECT_EQ(registry_->GetRevision(fitted.name, 1)->curve, "first");
  EXPECT_EQ(registry_->GetRevision(fitted.name, 1)->vector, MakeRevision("calm", "d1").vector);
  EXPECT_EQ(registry_->ListRevisions(fitted.name, 0, 10)->at(0).curve, "first");
  EXPECT_EQ(registry_->GetJob("operations/c1")->state, JobState::kSucceeded);
  EXPECT_EQ(registry_->GetJob("operations/c1")->result, "result");
  EXPECT_EQ(registry_->GetObjective(fitted.name)->etag, fitted.etag);
  // A later one takes its place.
  ASSERT_TRUE(registry_->CommitCurve(fitted.name, 1, "d1", "second", MakeCurveJob("c2")).ok());
  EXPECT_EQ(registry_->GetRevision(fitted.name, 1)->curve, "second");
  // A job ends once; a revision that is another one by now is not written to.
  EXPECT_EQ(registry_->CommitCurve(fitted.name, 1, "d1", "third", MakeFitJob("c2", "calm")).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Reason(registry_->CommitCurve(fitted.name, 1, "d0", "third", MakeCurveJob("c3"))), kRevisionNotFound);
  EXPECT_EQ(registry_->GetRevision(fitted.name, 1)->curve, "second");
}

TEST_F(RegistryRefitsTest, DeletingEndsRefitsAndCurves) {
  const ObjectiveRecord fitted = Fitted();
  ASSERT_TRUE(registry_->CommitCurve(fitted.name, 1, "d1", "curve", MakeCurveJob("c1")).ok());
  MakeCurveJob("c2");
  ASSERT_TRUE(registry_->BeginRefit(fitted.name, MakeRefitJob("r1"), "", "").ok());
  ASSERT_TRUE(registry_->DeleteObjective(fitted.name, "").ok());
  EXPECT_TRUE(registry_->GetJob("operations/c2")->cancel_requested);
  EXPECT_TRUE(registry_->GetJob("operations/r1")->cancel_requested);
  // A new objective of the name has nothing to do with the old one's refit.
  ASSERT_TRUE(registry_->CreateObjective(MakeObjective("calm"), MakeFitJob("2", "calm")).ok());
  EXPECT_EQ(registry_->GetObjective(fitted.name)->refit, "");
  const std::string uid = registry_->GetObjective(fitted.name)->uid;
  ASSERT_TRUE(registry_->CommitFit(uid, MakeRevision("calm", "d"), {}, MakeFitJob("2", "calm")).ok());
  EXPECT_TRUE(registry_->BeginRefit(fitted.name, MakeRefitJob("r2"), "", "").ok());
}

TEST_F(RegistryRefitsTest, AFileFromBeforeCurvesIsOpened) {
  const ObjectiveRecord fitted = Fitted();
  registry_.reset();
  {
    const std::unique_ptr<Database> database = *Database::Open(path_);
    ASSERT_TRUE(database
                    ->Execute("DROP TABLE strength_curve; DROP INDEX job_refit_request;"
                              "DELETE FROM schema_migration WHERE version >= 4")
                    .ok());
  }
  Reopen();
  EXPECT_EQ(registry_->GetRevision(fitted.name, 1)->digest, "d1");
  EXPECT_EQ(registry_->GetRevision(fitted.name, 1)->curve, "");
  EXPECT_TRUE(registry_->CommitCurve(fitted.name, 1, "d1", "curve", MakeCurveJob("c1")).ok());
}

}  // namespace
}  // namespace trimtab
