#include "server/registry/sqlite.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

constexpr int kBusyTimeoutMs = 5000;

absl::Status StorageError(std::string_view cause) {
  return ReasonError(absl::StatusCode::kUnavailable, kStorageUnavailable,
                     absl::StrCat("the registry's storage failed: ", std::string(cause)));
}

// SQLite gives its side files (-wal, -shm) the mode of the main one.
absl::Status CreatePrivately(const std::string& path) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return StorageError(absl::StrCat("cannot open ", path, ": ", std::strerror(errno)));
  struct stat info {};
  absl::Status status;
  if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) {
    status = StorageError(absl::StrCat(path, " is not a file"));
  } else if ((info.st_mode & 0077) != 0 && fchmod(file, 0600) != 0) {
    status = StorageError(absl::StrCat("cannot make ", path, " private (mode 0600): ", std::strerror(errno)));
  }
  close(file);
  return status;
}

}  // namespace

Statement::Statement(Statement&& other) noexcept
    : database_(other.database_),
      statement_(std::exchange(other.statement_, nullptr)),
      status_(std::move(other.status_)),
      next_parameter_(other.next_parameter_) {}

Statement::~Statement() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

Statement& Statement::Check(int code) {
  if (code != SQLITE_OK && status_.ok()) status_ = database_->Error(code);
  return *this;
}

Statement& Statement::Bind(int64_t value) { return Check(sqlite3_bind_int64(statement_, next_parameter_++, value)); }
Statement& Statement::Bind(double value) { return Check(sqlite3_bind_double(statement_, next_parameter_++, value)); }
Statement& Statement::BindNull() { return Check(sqlite3_bind_null(statement_, next_parameter_++)); }
Statement& Statement::Bind(std::string_view text) {
  // SQLite copies: the text may be gone before Step. A null pointer would be bound as NULL.
  return Check(sqlite3_bind_text64(statement_, next_parameter_++, text.empty() ? "" : text.data(), text.size(),
                                   SQLITE_TRANSIENT, SQLITE_UTF8));
}
Statement& Statement::Bind(Blob blob) {
  return Check(sqlite3_bind_blob64(statement_, next_parameter_++, blob.bytes.empty() ? "" : blob.bytes.data(),
                                   blob.bytes.size(), SQLITE_TRANSIENT));
}

absl::StatusOr<bool> Statement::Step() {
  TRIMTAB_RETURN_IF_ERROR(status_);
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return database_->Error(code);
}

absl::Status Statement::Run() {
  for (;;) {
    TRIMTAB_ASSIGN_OR_RETURN(const bool row, Step());
    if (!row) return absl::OkStatus();
  }
}

std::string Statement::Text(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  const int size = sqlite3_column_bytes(statement_, column);
  return bytes == nullptr ? std::string() : std::string(static_cast<const char*>(bytes), size);
}

std::optional<float> Statement::OptionalFloat(int column) const {
  if (IsNull(column)) return std::nullopt;
  return static_cast<float>(Double(column));
}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const std::string& path) {
  TRIMTAB_RETURN_IF_ERROR(CreatePrivately(path));
  sqlite3* handle = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &handle,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, nullptr);
  std::unique_ptr<Database> database(new Database(handle));
  if (code != SQLITE_OK) return handle == nullptr ? StorageError("out of memory") : database->Error(code);
  if (sqlite3_db_readonly(handle, "main") != 0) return StorageError(absl::StrCat(path, " is read-only"));
  sqlite3_busy_timeout(handle, kBusyTimeoutMs);
  return database;
}

Database::~Database() {
  for (const auto& [sql, statement] : cache_) sqlite3_finalize(statement);
  sqlite3_close(handle_);
}

Statement Database::Prepare(std::string_view sql) {
  sqlite3_stmt*& statement = cache_[sql];
  if (statement == nullptr) {
    const int code = sqlite3_prepare_v3(handle_, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT,
                                        &statement, nullptr);
    if (code != SQLITE_OK) return Statement(this, nullptr, Error(code));
  }
  return Statement(this, statement, absl::OkStatus());
}

absl::Status Database::Execute(const std::string& sql) {
  const int code = sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : Error(code);
}

absl::Status Database::Error(int code) const {
  const std::string cause = absl::StrCat(sqlite3_errmsg(handle_), " (SQLite code ", code, ")");
  switch (code & 0xff) {
    case SQLITE_FULL:
      return StorageError(absl::StrCat("the disk is full: ", cause));
    case SQLITE_READONLY:
      return StorageError(absl::StrCat("the file is read-only: ", cause));
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return StorageError(absl::StrCat("another process holds the file: ", cause));
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_NOMEM:
    case SQLITE_PERM:
    case SQLITE_INTERRUPT:
      return StorageError(cause);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(absl::StrCat("the registry's file is damaged: ", cause));
    default:
      return absl::InternalError(absl::StrCat("registry: ", cause));
  }
}

absl::StatusOr<Transaction> Transaction::Begin(Database& database) {
  TRIMTAB_RETURN_IF_ERROR(database.Prepare("BEGIN IMMEDIATE").Run());
  return Transaction(&database);
}

absl::Status Transaction::Commit() {
  TRIMTAB_RETURN_IF_ERROR(database_->Prepare("COMMIT").Run());
  database_ = nullptr;
  return absl::OkStatus();
}

Transaction::~Transaction() {
  // SQLite has rolled back by itself after some failures (disk full).
  if (database_ != nullptr && database_->in_transaction()) database_->Prepare("ROLLBACK").Run().IgnoreError();
}

}  // namespace trimtab
