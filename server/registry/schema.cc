#include "server/registry/schema.h"

#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

constexpr int64_t kApplicationId = 0x5472696d;  // "Trim": how `file` and we recognise our own files

// Append only: a released step never changes. Times are nanoseconds since 1970.
constexpr const char* kMigrations[] = {
    // 1: objectives, revisions, attributions, jobs, drift reports, audit.
    R"sql(
CREATE TABLE setting (
  key TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE objective (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  uid TEXT NOT NULL UNIQUE,
  request_id TEXT NOT NULL,
  request_hash TEXT NOT NULL,
  state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 4),
  display_name TEXT NOT NULL,
  description TEXT NOT NULL,
  method TEXT NOT NULL,
  method_config BLOB NOT NULL,
  pairs_hash TEXT NOT NULL,
  pair_count INTEGER NOT NULL,
  held_out_count INTEGER NOT NULL,
  default_strength REAL,
  max_strength REAL,
  active_revision INTEGER NOT NULL DEFAULT 0,
  error BLOB NOT NULL,
  model_fingerprint TEXT NOT NULL,
  operation TEXT NOT NULL,
  etag TEXT NOT NULL,
  create_time INTEGER NOT NULL,
  update_time INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX objective_request ON objective (request_id) WHERE request_id <> '';

-- Apart from the objective, so that lists do not read megabytes.
CREATE TABLE objective_pairs (
  objective_id INTEGER PRIMARY KEY REFERENCES objective (id) ON DELETE CASCADE,
  pairs BLOB NOT NULL
) STRICT;

CREATE TABLE revision (
  objective_id INTEGER NOT NULL REFERENCES objective (id) ON DELETE CASCADE,
  revision INTEGER NOT NULL CHECK (revision >= 1),
  digest TEXT NOT NULL,
  model_fingerprint TEXT NOT NULL,
  method TEXT NOT NULL,
  method_config BLOB NOT NULL,
  pairs_hash TEXT NOT NULL,
  create_time INTEGER NOT NULL,
  summary BLOB NOT NULL,
  vector BLOB NOT NULL,
  PRIMARY KEY (objective_id, revision)
) STRICT;
CREATE TRIGGER revision_never_changes BEFORE UPDATE ON revision
BEGIN SELECT RAISE(ABORT, 'revisions never change'); END;

CREATE TABLE attribution (
  objective_id INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  pair_index INTEGER NOT NULL,
  attribution BLOB NOT NULL,
  PRIMARY KEY (objective_id, revision, pair_index),
  FOREIGN KEY (objective_id, revision) REFERENCES revision (objective_id, revision) ON DELETE CASCADE
) STRICT;

CREATE TABLE job (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  target TEXT NOT NULL,
  objective_uid TEXT NOT NULL,
  request_id TEXT NOT NULL,
  request_hash TEXT NOT NULL,
  state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 5),
  cancel_requested INTEGER NOT NULL CHECK (cancel_requested IN (0, 1)),
  attempts INTEGER NOT NULL,
  create_time INTEGER NOT NULL,
  update_time INTEGER NOT NULL,
  end_time INTEGER CHECK ((end_time IS NULL) = (state <= 2)),
  metadata BLOB NOT NULL,
  result BLOB NOT NULL,
  error BLOB NOT NULL,
  request BLOB NOT NULL
) STRICT;
CREATE INDEX job_unfinished ON job (target) WHERE state <= 2;
-- A job that creates an objective is found again by the objective's request_id.
CREATE UNIQUE INDEX job_request ON job (kind, request_id) WHERE request_id <> '' AND objective_uid = '';

CREATE TABLE job_partial (
  job_id INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
  key TEXT NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (job_id, key)
) STRICT;

CREATE TABLE drift_report (
  name TEXT PRIMARY KEY,
  create_time INTEGER NOT NULL,
  report BLOB NOT NULL
) STRICT;

-- One row per change, in its transaction; the largest id is the registry's revision.
CREATE TABLE audit (
  id INTEGER PRIMARY KEY,
  time INTEGER NOT NULL,
  action TEXT NOT NULL,
  resource TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_never_changes BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'audit entries never change'); END;

INSERT INTO setting (key, value) VALUES ('secret', randomblob(32));
)sql",
    // 2: models that were loaded at run time.
    R"sql(
CREATE TABLE model (
  name TEXT PRIMARY KEY,
  path TEXT NOT NULL,
  precision TEXT NOT NULL,
  kv_cache_mib INTEGER NOT NULL,
  fingerprint TEXT NOT NULL,
  create_time INTEGER NOT NULL,
  -- Starts of the server that began to load it and did not come to an end.
  unfinished_starts INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
)sql",
    // 3: calls that imported a revision.
    R"sql(
CREATE TABLE import_request (
  request_id TEXT PRIMARY KEY,
  request_hash TEXT NOT NULL,
  objective_id INTEGER NOT NULL REFERENCES objective (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
)sql",
    // 4: curves, which come after their revisions; fits of further revisions.
    R"sql(
CREATE TABLE strength_curve (
  objective_id INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  curve BLOB NOT NULL,
  PRIMARY KEY (objective_id, revision),
  FOREIGN KEY (objective_id, revision) REFERENCES revision (objective_id, revision) ON DELETE CASCADE
) STRICT;
CREATE UNIQUE INDEX job_refit_request ON job (request_id) WHERE kind = 'refit' AND request_id <> '';
)sql",
};

absl::StatusOr<int64_t> ReadInteger(Database& database, std::string_view sql) {
  Statement statement = database.Prepare(sql);
  TRIMTAB_ASSIGN_OR_RETURN(const bool row, statement.Step());
  return row ? statement.Int(0) : 0;
}

absl::StatusOr<std::string> ReadText(Database& database, std::string_view sql) {
  Statement statement = database.Prepare(sql);
  TRIMTAB_ASSIGN_OR_RETURN(const bool row, statement.Step());
  return row ? statement.Text(0) : std::string();
}

// Marks a new file as ours.
absl::Status TakePossession(Database& database) {
  TRIMTAB_ASSIGN_OR_RETURN(const int64_t id, ReadInteger(database, "PRAGMA application_id"));
  if (id == kApplicationId) return absl::OkStatus();
  TRIMTAB_ASSIGN_OR_RETURN(const int64_t tables, ReadInteger(database, "SELECT count(*) FROM sqlite_schema"));
  if (id != 0 || tables != 0) {
    return absl::FailedPreconditionError(
        "the registry's file is an SQLite database of another program: choose another");
  }
  return database.Execute(absl::StrCat("PRAGMA application_id = ", kApplicationId));
}

absl::Status CheckIntegrity(Database& database) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::string problem, ReadText(database, "PRAGMA integrity_check(1)"));
  if (problem != "ok") {
    return absl::DataLossError(
        absl::StrCat("the registry's file is damaged (", problem, "): restore it from a backup"));
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::string orphan, ReadText(database, "PRAGMA foreign_key_check"));
  if (!orphan.empty()) {
    return absl::DataLossError(absl::StrCat("the registry's file is damaged (table ", orphan,
                                            " has rows without an owner): restore it from a backup"));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t LatestSchemaVersion() { return std::ssize(kMigrations); }

absl::Status PrepareSchema(Database& database, absl::Time now) {
  TRIMTAB_RETURN_IF_ERROR(TakePossession(database));
  TRIMTAB_ASSIGN_OR_RETURN(const std::string mode, ReadText(database, "PRAGMA journal_mode = WAL"));
  if (mode != "wal") {
    return absl::FailedPreconditionError(
        absl::StrCat("the registry needs SQLite's write-ahead log, which its folder does not allow (mode ", mode,
                     "): choose a local disk"));
  }
  TRIMTAB_RETURN_IF_ERROR(database.Execute("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON"));
  TRIMTAB_RETURN_IF_ERROR(CheckIntegrity(database));
  TRIMTAB_RETURN_IF_ERROR(
      database.Execute("CREATE TABLE IF NOT EXISTS schema_migration "
                       "(version INTEGER PRIMARY KEY, applied_time INTEGER NOT NULL) STRICT"));
  TRIMTAB_ASSIGN_OR_RETURN(const int64_t version, ReadInteger(database, "SELECT max(version) FROM schema_migration"));
  if (version > LatestSchemaVersion()) {
    return absl::FailedPreconditionError(absl::StrCat("the registry's file has schema ", version,
                                                      ", this server knows ", LatestSchemaVersion(),
                                                      ": start the newer server that wrote it"));
  }
  for (int64_t next = version + 1; next <= LatestSchemaVersion(); ++next) {
    TRIMTAB_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
    TRIMTAB_RETURN_IF_ERROR(database.Execute(kMigrations[next - 1]));
    TRIMTAB_RETURN_IF_ERROR(database.Prepare("INSERT INTO schema_migration (version, applied_time) VALUES (?, ?)")
                                .BindAll(next, absl::ToUnixNanos(now))
                                .Run());
    TRIMTAB_RETURN_IF_ERROR(transaction.Commit());
  }
  return absl::OkStatus();
}

}  // namespace trimtab
