#include "server/registry/schema.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace trimtab {
namespace {

std::string NewPath(std::string_view name) {
  const std::string path = testing::TempDir() + "/" + std::string(name);
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path + suffix);
  return path;
}

std::string Read(Database& database, std::string_view sql) {
  Statement select = database.Prepare(sql);
  return select.Step().value_or(false) ? select.Text(0) : "";
}

TEST(SchemaTest, PreparesANewFileOnce) {
  const std::string path = NewPath("new.db");
  std::string secret;
  {
    const std::unique_ptr<Database> database = *Database::Open(path);
    ASSERT_TRUE(PrepareSchema(*database, absl::Now()).ok());
    EXPECT_EQ(Read(*database, "PRAGMA journal_mode"), "wal");
    EXPECT_EQ(Read(*database, "PRAGMA synchronous"), "2");  // FULL
    EXPECT_EQ(Read(*database, "PRAGMA foreign_keys"), "1");
    secret = Read(*database, "SELECT value FROM setting WHERE key = 'secret'");
    EXPECT_EQ(secret.size(), 32u);
  }
  const std::unique_ptr<Database> database = *Database::Open(path);
  ASSERT_TRUE(PrepareSchema(*database, absl::Now()).ok());
  EXPECT_EQ(Read(*database, "SELECT count(*) FROM schema_migration"), std::to_string(LatestSchemaVersion()));
  EXPECT_EQ(Read(*database, "SELECT value FROM setting WHERE key = 'secret'"), secret);
}

TEST(SchemaTest, RefusesAnotherProgramsFile) {
  const std::unique_ptr<Database> database = *Database::Open(NewPath("foreign.db"));
  ASSERT_TRUE(database->Execute("CREATE TABLE recipes (name TEXT)").ok());
  const absl::Status status = PrepareSchema(*database, absl::Now());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Read(*database, "SELECT count(*) FROM sqlite_schema"), "1");
}

TEST(SchemaTest, RefusesANewerServersFile) {
  const std::unique_ptr<Database> database = *Database::Open(NewPath("newer.db"));
  ASSERT_TRUE(PrepareSchema(*database, absl::Now()).ok());
  ASSERT_TRUE(database->Execute("INSERT INTO schema_migration VALUES (1000, 0)").ok());
  const absl::Status status = PrepareSchema(*database, absl::Now());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("schema 1000"), absl::string_view::npos) << status;
}

TEST(SchemaTest, TextIsNotADatabase) {
  const std::string path = NewPath("text.db");
  std::ofstream(path) << std::string(4096, 'x');
  const std::unique_ptr<Database> database = *Database::Open(path);
  EXPECT_EQ(PrepareSchema(*database, absl::Now()).code(), absl::StatusCode::kDataLoss);
}

TEST(SchemaTest, FindsDamage) {
  const std::string path = NewPath("damaged.db");
  {
    const std::unique_ptr<Database> database = *Database::Open(path);
    ASSERT_TRUE(PrepareSchema(*database, absl::Now()).ok());
    for (int64_t i = 0; i < 200; ++i) {
      ASSERT_TRUE(database->Prepare("INSERT INTO audit VALUES (?, 0, 'action', 'resource', hex(zeroblob(200)))")
                      .Bind(i)
                      .Run()
                      .ok());
    }
  }
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-3 * 4096, std::ios::end);
  file << std::string(2 * 4096, '\x55');
  file.close();
  const std::unique_ptr<Database> database = *Database::Open(path);
  EXPECT_EQ(PrepareSchema(*database, absl::Now()).code(), absl::StatusCode::kDataLoss);
}

TEST(SchemaTest, RevisionsAndAuditEntriesNeverChange) {
  const std::unique_ptr<Database> database = *Database::Open(NewPath("immutable.db"));
  ASSERT_TRUE(PrepareSchema(*database, absl::Now()).ok());
  ASSERT_TRUE(database->Execute("INSERT INTO audit VALUES (1, 0, 'a', 'r', 'd')").ok());
  EXPECT_FALSE(database->Execute("UPDATE audit SET detail = 'other'").ok());
  EXPECT_EQ(Read(*database, "SELECT detail FROM audit"), "d");
}

}  // namespace
}  // namespace trimtab
