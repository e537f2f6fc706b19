#include "server/registry/sqlite_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/server/registry/registry_fixture.h"

namespace trimtab {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

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
