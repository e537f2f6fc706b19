// A registry on a fresh file, and the fixture of the tests of SqliteRegistry.
#ifndef TRIMTAB_TESTS_SERVER_REGISTRY_REGISTRY_FIXTURE_H_
#define TRIMTAB_TESTS_SERVER_REGISTRY_REGISTRY_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/registry/sqlite_registry.h"
#include "tests/server/registry/records.h"

namespace trimtab {

inline std::string Reason(const absl::Status& status) { return GetErrorDetail(status).reason; }
inline std::string Message(const absl::Status& status) { return std::string(status.message()); }

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

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_REGISTRY_REGISTRY_FIXTURE_H_
