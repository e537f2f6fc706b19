// Revisions that come from files: creation, numbering, idempotency, what they refuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "server/registry/sqlite_registry.h"
#include "tests/server/registry/registry_fixture.h"

namespace trimtab {
namespace {

using ::testing::HasSubstr;
using ObjectiveState = ObjectiveRecord::State;

class RegistryImportsTest : public SqliteRegistryTest {
 protected:
  absl::StatusOr<ObjectiveRecord> Import(std::string_view id, std::string_view digest, std::string_view request_id = "",
                                         std::string_view request_hash = "", std::string_view etag = "") {
    return registry_->ImportRevision(MakeObjective(id, request_id, request_hash), MakeRevision(id, digest), etag);
  }
};

TEST_F(RegistryImportsTest, ANewObjectiveServesAtOnce) {
  const absl::StatusOr<ObjectiveRecord> imported = Import("calm", "d1");
  ASSERT_TRUE(imported.ok()) << imported.status();
  Reopen();
  const ObjectiveRecord stored = *registry_->GetObjective(TestObjectiveName("calm"));
  EXPECT_EQ(stored.state, ObjectiveState::kActive);
  EXPECT_EQ(stored.active_revision, 1);
  EXPECT_EQ(stored.etag, imported->etag);
  EXPECT_EQ(stored.uid, imported->uid);
  EXPECT_EQ(stored.display_name, "Calm");
  EXPECT_EQ(stored.request_id, "");
  EXPECT_EQ(stored.create_time, clock_.Now());
  const RevisionRecord revision = *registry_->GetRevision(stored.name, 1);
  EXPECT_EQ(revision.digest, "d1");
  EXPECT_EQ(revision.vector, MakeRevision("calm", "d1").vector);
  EXPECT_EQ(revision.create_time, clock_.Now());
  EXPECT_THAT(observer_.changes, testing::ElementsAre("import_revision"));
  EXPECT_THAT(registry_->ListAudit(0, 10)->at(0).detail, HasSubstr("revision 1, digest d1"));
}

TEST_F(RegistryImportsTest, AnExistingObjectiveGetsItsNextRevision) {
  ObjectiveRecord objective = Fit(Create("calm"), "calm");
  EXPECT_EQ(Import("calm", "d2")->active_revision, 2);
  EXPECT_EQ(registry_->GetRevision(objective.name, 1)->digest, "d1");
  objective = *registry_->GetObjective(objective.name);
  EXPECT_EQ(objective.pairs, MakeObjective("calm").pairs);  // for a refit

  // A disabled objective stays disabled, a failed one works from now on.
  objective.state = ObjectiveState::kDisabled;
  ASSERT_TRUE(registry_->UpdateObjective(objective, "").ok());
  const ObjectiveRecord disabled = *Import("calm", "d3");
  EXPECT_EQ(disabled.state, ObjectiveState::kDisabled);
  EXPECT_EQ(disabled.active_revision, 3);
  const ObjectiveRecord failed = Create("wild");
  JobRecord job = MakeFitJob("wild", "wild");
  job.state = JobRecord::State::kFailed;
  job.error = "no signal";
  ASSERT_TRUE(registry_->CommitFitFailure(failed.uid, job).ok());
  const ObjectiveRecord healed = *Import("wild", "d1");
  EXPECT_EQ(healed.state, ObjectiveState::kActive);
  EXPECT_EQ(healed.error, "");
}

TEST_F(RegistryImportsTest, TheSameRequestImportsOnce) {
  const ObjectiveRecord first = *Import("calm", "d1", "r1", "h1");
  ASSERT_TRUE(Import("calm", "d2", "r2", "h2").ok());
  const absl::StatusOr<ObjectiveRecord> again = Import("calm", "d1", "r1", "h1");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->active_revision, 2);  // as it is now
  EXPECT_EQ(again->uid, first.uid);
  EXPECT_EQ(registry_->ListRevisions(first.name, 0, 10)->size(), 2u);
  EXPECT_EQ(registry_->revision(), 2);
  const absl::Status other = Import("calm", "d1", "r1", "h9").status();
  EXPECT_EQ(Reason(other), kFieldInvalid);
  EXPECT_EQ(GetErrorDetail(other).violations[0].field, "request_id");
  // The ids of other calls are theirs, and a deleted objective's are free again.
  EXPECT_TRUE(registry_->CreateObjective(MakeObjective("wild", "r1", "h"), MakeFitJob("1", "wild")).ok());
  ASSERT_TRUE(registry_->DeleteObjective(first.name, "").ok());
  EXPECT_NE(Import("calm", "d1", "r1", "h1")->uid, first.uid);
}

TEST_F(RegistryImportsTest, WaitsForTheFit) {
  const ObjectiveRecord objective = Create("calm");
  const absl::Status creating = Import("calm", "d1").status();
  EXPECT_EQ(creating.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Reason(creating), kObjectiveNotReady);
  EXPECT_EQ(GetErrorDetail(creating).metadata.at("operation"), "operations/calm");
  Fit(objective, "calm");
  // A further fit of the objective that serves.
  JobRecord refit = MakeFitJob("again", "calm");
  refit.kind = "refit";
  ASSERT_TRUE(registry_->BeginRefit(objective.name, refit, "", "").ok());
  EXPECT_EQ(Reason(Import("calm", "d2").status()), kObjectiveNotReady);
  EXPECT_EQ(registry_->GetObjective(objective.name)->active_revision, 1);
}

TEST_F(RegistryImportsTest, AnEtagMeansAnObjectiveAsItWas) {
  EXPECT_EQ(Reason(Import("calm", "d1", "", "", "etag").status()), kObjectiveNotFound);
  const ObjectiveRecord first = *Import("calm", "d1");
  const ObjectiveRecord second = *Import("calm", "d2", "", "", first.etag);
  EXPECT_EQ(second.active_revision, 2);
  const absl::Status stale = Import("calm", "d3", "", "", first.etag).status();
  EXPECT_EQ(stale.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(Reason(stale), kEtagMismatch);
  EXPECT_EQ(registry_->ListRevisions(first.name, 0, 10)->size(), 2u);
}

}  // namespace
}  // namespace trimtab
