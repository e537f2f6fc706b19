// A thin wrapper of SQLite's C interface: one connection, cached prepared statements, transactions, errors as statuses.
// Used by SqliteRegistry under its mutex: not thread-safe.
#ifndef TRIMTAB_SERVER_REGISTRY_SQLITE_H_
#define TRIMTAB_SERVER_REGISTRY_SQLITE_H_

#include <sqlite3.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trimtab {

// Bound as a BLOB; a plain string is bound as TEXT.
struct Blob {
  std::string_view bytes;
};

class Database;

// A prepared statement on loan from its database's cache, reset when it goes out of scope. Parameters are bound in
// order; errors of binding surface in Step.
class Statement {
 public:
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&&) = delete;
  ~Statement();

  Statement& Bind(int64_t value);
  Statement& Bind(double value);
  Statement& Bind(std::string_view text);
  Statement& Bind(Blob blob);
  Statement& BindNull();
  Statement& Bind(std::optional<float> value) { return value ? Bind(static_cast<double>(*value)) : BindNull(); }
  template <typename... Values>
  Statement& BindAll(const Values&... values) {
    (Bind(values), ...);
    return *this;
  }

  // Whether there is a row to read; columns are valid until the next Step.
  absl::StatusOr<bool> Step();
  // To the end, for statements without rows.
  absl::Status Run();

  int64_t Int(int column) const { return sqlite3_column_int64(statement_, column); }
  double Double(int column) const { return sqlite3_column_double(statement_, column); }
  bool IsNull(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
  std::string Text(int column) const;  // of TEXT and BLOB columns
  std::optional<float> OptionalFloat(int column) const;

 private:
  friend class Database;
  Statement(Database* database, sqlite3_stmt* statement, absl::Status status)
      : database_(database), statement_(statement), status_(std::move(status)) {}
  Statement& Check(int code);

  Database* database_;
  sqlite3_stmt* statement_;  // owned by the database's cache
  absl::Status status_;
  int next_parameter_ = 1;
};

class Database {
 public:
  // Opens or creates (mode 0600) the file. UNAVAILABLE when that fails or the file is read-only.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& path);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // `sql` must live as long as the database: a literal.
  Statement Prepare(std::string_view sql);
  // One or more statements without rows or parameters, not cached.
  absl::Status Execute(const std::string& sql);
  // Rows changed by the last INSERT, UPDATE or DELETE.
  int64_t changes() const { return sqlite3_changes64(handle_); }
  bool in_transaction() const { return sqlite3_get_autocommit(handle_) == 0; }
  // The failure of the last call: UNAVAILABLE (STORAGE_UNAVAILABLE) for the disk, the file and locks, DATA_LOSS for a
  // damaged file, INTERNAL for a bug.
  absl::Status Error(int code) const;

 private:
  explicit Database(sqlite3* handle) : handle_(handle) {}

  sqlite3* const handle_;
  std::map<std::string_view, sqlite3_stmt*> cache_;
};

// BEGIN IMMEDIATE; rolls back unless Commit succeeded.
class Transaction {
 public:
  static absl::StatusOr<Transaction> Begin(Database& database);
  Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  ~Transaction();
  absl::Status Commit();

 private:
  explicit Transaction(Database* database) : database_(database) {}
  Database* database_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_REGISTRY_SQLITE_H_
