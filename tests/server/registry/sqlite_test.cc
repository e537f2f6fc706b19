#include "server/registry/sqlite.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "server/base/error.h"

namespace trimtab {
namespace {

std::string NewPath(std::string_view name) {
  const std::string path = testing::TempDir() + "/" + std::string(name);
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path + suffix);
  return path;
}

TEST(SqliteTest, RoundTripsEveryType) {
  const std::unique_ptr<Database> database = *Database::Open(NewPath("types.db"));
  ASSERT_TRUE(database->Execute("CREATE TABLE t (i INTEGER, d REAL, s TEXT, b BLOB, n REAL) STRICT").ok());
  const std::string bytes("\0\xff\0", 3), text("caf\xc3\xa9");
  ASSERT_TRUE(database->Prepare("INSERT INTO t VALUES (?, ?, ?, ?, ?)")
                  .BindAll(int64_t{1} << 40, 0.5, text, Blob{bytes}, std::optional<float>())
                  .Run()
                  .ok());
  EXPECT_EQ(database->changes(), 1);
  Statement select = database->Prepare("SELECT i, d, s, b, n, length(b) FROM t");
  ASSERT_TRUE(*select.Step());
  EXPECT_EQ(select.Int(0), int64_t{1} << 40);
  EXPECT_EQ(select.OptionalFloat(1), 0.5f);
  EXPECT_EQ(select.Text(2), text);
  EXPECT_EQ(select.Text(3), bytes);
  EXPECT_EQ(select.OptionalFloat(4), std::nullopt);
  EXPECT_EQ(select.Int(5), 3);
  EXPECT_FALSE(*select.Step());
}

TEST(SqliteTest, EmptyTextAndBlobAreNotNull) {
  const std::unique_ptr<Database> database = *Database::Open(NewPath("empty.db"));
  ASSERT_TRUE(database->Execute("CREATE TABLE t (s TEXT NOT NULL, b BLOB NOT NULL) STRICT").ok());
  EXPECT_TRUE(database->Prepare("INSERT INTO t VALUES (?, ?)").BindAll(std::string_view(), Blob{}).Run().ok());
}

TEST(SqliteTest, TransactionRollsBackUnlessCommitted) {
  const std::unique_ptr<Database> database = *Database::Open(NewPath("rollback.db"));
  ASSERT_TRUE(database->Execute("CREATE TABLE t (i INTEGER)").ok());
  {
    const absl::StatusOr<Transaction> transaction = Transaction::Begin(*database);
    ASSERT_TRUE(transaction.ok());
    ASSERT_TRUE(database->Execute("INSERT INTO t VALUES (1)").ok());
  }
  EXPECT_FALSE(database->in_transaction());
  absl::StatusOr<Transaction> transaction = Transaction::Begin(*database);
  ASSERT_TRUE(database->Execute("INSERT INTO t VALUES (2)").ok());
  ASSERT_TRUE(transaction->Commit().ok());
  Statement select = database->Prepare("SELECT group_concat(i) FROM t");
  ASSERT_TRUE(*select.Step());
  EXPECT_EQ(select.Text(0), "2");
}

TEST(SqliteTest, FullDiskIsUnavailableAndLeavesNothing) {
  const std::unique_ptr<Database> database = *Database::Open(NewPath("full.db"));
  ASSERT_TRUE(database->Execute("CREATE TABLE t (b BLOB); PRAGMA max_page_count = 8").ok());
  const std::string big(1 << 20, 'x');
  {
    absl::StatusOr<Transaction> transaction = Transaction::Begin(*database);
    ASSERT_TRUE(database->Execute("INSERT INTO t VALUES (x'00')").ok());
    const absl::Status status = database->Prepare("INSERT INTO t VALUES (?)").Bind(Blob{big}).Run();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(GetErrorDetail(status).reason, kStorageUnavailable);
    EXPECT_NE(status.message().find("disk is full"), absl::string_view::npos) << status;
  }
  Statement select = database->Prepare("SELECT count(*) FROM t");
  ASSERT_TRUE(*select.Step());
  EXPECT_EQ(select.Int(0), 0);
}

TEST(SqliteTest, ReadOnlyIsUnavailable) {
  const std::unique_ptr<Database> database = *Database::Open(NewPath("readonly.db"));
  ASSERT_TRUE(database->Execute("CREATE TABLE t (i INTEGER); PRAGMA query_only = ON").ok());
  const absl::Status status = database->Execute("INSERT INTO t VALUES (1)");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("read-only"), absl::string_view::npos) << status;
}

TEST(SqliteTest, BadStatementIsInternal) {
  const std::unique_ptr<Database> database = *Database::Open(NewPath("bad.db"));
  EXPECT_EQ(database->Prepare("SELEKT 1").Run().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(database->Prepare("SELECT ?").BindAll(int64_t{1}, int64_t{2}).Run().code(), absl::StatusCode::kInternal);
}

TEST(SqliteTest, FilesArePrivate) {
  const std::string path = NewPath("private.db");
  const std::unique_ptr<Database> database = *Database::Open(path);
  ASSERT_TRUE(database->Execute("PRAGMA journal_mode = WAL; CREATE TABLE t (i INTEGER)").ok());
  for (const char* suffix : {"", "-wal", "-shm"}) {
    struct stat info {};
    ASSERT_EQ(stat((path + suffix).c_str(), &info), 0) << suffix;
    EXPECT_EQ(info.st_mode & 0777, 0600) << suffix;
  }
}

TEST(SqliteTest, OpenNamesWhatIsWrong) {
  const absl::Status missing = Database::Open(testing::TempDir() + "/no/such/folder/x.db").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(missing.message().find("No such file or directory"), absl::string_view::npos) << missing;
  const absl::Status folder = Database::Open(testing::TempDir()).status();
  EXPECT_EQ(folder.code(), absl::StatusCode::kUnavailable) << folder;
}

}  // namespace
}  // namespace trimtab
