// Opening, changes and their audit. Objectives are in sqlite_registry_objectives.cc, jobs and drift reports in
// sqlite_registry_jobs.cc, models in sqlite_registry_models.cc.
#include "server/registry/sqlite_registry.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/registry/schema.h"

namespace trimtab {

class SqliteRegistry::ProcessLock {
 public:
  static absl::StatusOr<std::unique_ptr<ProcessLock>> Acquire(const std::string& path) {
    const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) {
      return ReasonError(absl::StatusCode::kUnavailable, kStorageUnavailable,
                         absl::StrCat("the registry's storage failed: cannot open ", path, ": ", std::strerror(errno)));
    }
    std::unique_ptr<ProcessLock> lock(new ProcessLock(file));
    if (flock(file, LOCK_EX | LOCK_NB) != 0) {
      return absl::FailedPreconditionError(absl::StrCat("another server has this registry open (it holds ", path,
                                                        "): stop it, or give this one another registry file"));
    }
    return lock;
  }
  ~ProcessLock() { close(file_); }

 private:
  explicit ProcessLock(int file) : file_(file) {}
  const int file_;
};

absl::StatusOr<std::unique_ptr<SqliteRegistry>> SqliteRegistry::Open(const std::string& path, const Clock& clock,
                                                                     RegistryObserver* observer) {
  TRIMTAB_ASSIGN_OR_RETURN(std::unique_ptr<ProcessLock> lock, ProcessLock::Acquire(path + ".lock"));
  TRIMTAB_ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(path));
  TRIMTAB_RETURN_IF_ERROR(PrepareSchema(*database, clock.Now()));
  std::unique_ptr<SqliteRegistry> registry(new SqliteRegistry(std::move(lock), std::move(database), clock, observer));
  TRIMTAB_RETURN_IF_ERROR(registry->LoadSettings());
  return registry;
}

SqliteRegistry::SqliteRegistry(std::unique_ptr<ProcessLock> lock, std::unique_ptr<Database> database,
                               const Clock& clock, RegistryObserver* observer)
    : process_lock_(std::move(lock)), clock_(clock), observer_(observer), database_(std::move(database)) {}

SqliteRegistry::~SqliteRegistry() = default;

absl::Status SqliteRegistry::LoadSettings() {
  absl::MutexLock lock(&mutex_);
  Statement secret = database_->Prepare("SELECT value FROM setting WHERE key = 'secret'");
  TRIMTAB_ASSIGN_OR_RETURN(const bool found, secret.Step());
  if (!found) return absl::DataLossError("the registry's file is damaged (no secret): restore it from a backup");
  secret_ = secret.Text(0);
  Statement last = database_->Prepare("SELECT max(id) FROM audit");
  TRIMTAB_RETURN_IF_ERROR(last.Step().status());
  revision_ = last.Int(0);
  return absl::OkStatus();
}

void SqliteRegistry::Observe(std::string_view operation, const absl::Status& status) {
  const bool storage = absl::IsUnavailable(status) || absl::IsDataLoss(status) || absl::IsInternal(status);
  if (storage && observer_ != nullptr) observer_->OnStorageFailure(operation, status);
}

absl::Status SqliteRegistry::Commit(std::string_view operation, std::string_view resource,
                                    absl::FunctionRef<absl::Status(Change&)> body) {
  return Locked(operation, [&](Database& database) -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
    Change change{.database = database,
                  .now = clock_.Now(),
                  .id = revision() + 1,
                  .action = std::string(operation),
                  .resource = std::string(resource)};
    TRIMTAB_RETURN_IF_ERROR(body(change));
    if (change.write == Write::kNothing) return absl::OkStatus();
    if (change.write == Write::kQuietly) return transaction.Commit();
    TRIMTAB_RETURN_IF_ERROR(
        database.Prepare("INSERT INTO audit (id, time, action, resource, detail) VALUES (?, ?, ?, ?, ?)")
            .BindAll(change.id, absl::ToUnixNanos(change.now), change.action, change.resource, change.detail)
            .Run());
    TRIMTAB_RETURN_IF_ERROR(transaction.Commit());
    revision_.store(change.id, std::memory_order_relaxed);
    if (observer_ != nullptr) observer_->OnChange(change.action);
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<AuditRecord>> SqliteRegistry::ListAudit(int64_t after, int64_t limit) {
  using Result = absl::StatusOr<std::vector<AuditRecord>>;
  return Locked("list_audit", [&](Database& database) -> Result {
    Statement select =
        database.Prepare("SELECT id, time, action, resource, detail FROM audit WHERE id > ? ORDER BY id LIMIT ?");
    select.BindAll(after, std::max<int64_t>(limit, 0));
    std::vector<AuditRecord> records;
    for (;;) {
      TRIMTAB_ASSIGN_OR_RETURN(const bool row, select.Step());
      if (!row) return records;
      records.push_back({.id = select.Int(0),
                         .time = absl::FromUnixNanos(select.Int(1)),
                         .action = select.Text(2),
                         .resource = select.Text(3),
                         .detail = select.Text(4)});
    }
  });
}

}  // namespace trimtab
