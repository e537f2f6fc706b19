#include "server/registry/rows.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace trimtab {

ObjectiveRow ReadObjectiveRow(const Statement& row) {
  ObjectiveRow objective;
  ObjectiveRecord& record = objective.record;
  objective.id = row.Int(0);
  record.name = row.Text(1);
  record.uid = row.Text(2);
  record.request_id = row.Text(3);
  record.request_hash = row.Text(4);
  record.state = static_cast<ObjectiveRecord::State>(row.Int(5));
  record.display_name = row.Text(6);
  record.description = row.Text(7);
  record.method = row.Text(8);
  record.method_config = row.Text(9);
  record.pairs_hash = row.Text(10);
  record.pair_count = row.Int(11);
  record.held_out_count = row.Int(12);
  record.default_strength = row.OptionalFloat(13);
  record.max_strength = row.OptionalFloat(14);
  record.active_revision = row.Int(15);
  record.error = row.Text(16);
  record.model_fingerprint = row.Text(17);
  record.operation = row.Text(18);
  record.etag = row.Text(19);
  record.create_time = absl::FromUnixNanos(row.Int(20));
  record.update_time = absl::FromUnixNanos(row.Int(21));
  record.refit = row.Text(22);
  return objective;
}

RevisionRecord ReadRevisionRow(const Statement& row, std::string_view objective) {
  RevisionRecord record;
  record.objective = std::string(objective);
  record.revision = row.Int(0);
  record.digest = row.Text(1);
  record.model_fingerprint = row.Text(2);
  record.method = row.Text(3);
  record.method_config = row.Text(4);
  record.pairs_hash = row.Text(5);
  record.create_time = absl::FromUnixNanos(row.Int(6));
  record.summary = row.Text(7);
  record.curve = row.Text(8);
  return record;
}

JobRecord ReadJobRow(const Statement& row) {
  JobRecord record;
  record.name = row.Text(0);
  record.kind = row.Text(1);
  record.target = row.Text(2);
  record.request_id = row.Text(3);
  record.request_hash = row.Text(4);
  record.state = static_cast<JobRecord::State>(row.Int(5));
  record.cancel_requested = row.Int(6) != 0;
  record.attempts = row.Int(7);
  record.create_time = absl::FromUnixNanos(row.Int(8));
  record.update_time = absl::FromUnixNanos(row.Int(9));
  if (!row.IsNull(10)) record.end_time = absl::FromUnixNanos(row.Int(10));
  record.metadata = row.Text(11);
  record.result = row.Text(12);
  record.error = row.Text(13);
  record.request = row.Text(14);
  record.objective_uid = row.Text(15);
  return record;
}

absl::StatusOr<ObjectiveRow> FindObjective(Database& database, std::string_view name) {
  Statement select = database.Prepare("SELECT " TRIMTAB_OBJECTIVE_COLUMNS " FROM objective WHERE name = ?");
  TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.Bind(name).Step());
  if (!found) return NotFoundError(kObjectiveNotFound, "objective", name);
  return ReadObjectiveRow(select);
}

absl::StatusOr<ObjectiveRow> FindObjectiveByUid(Database& database, std::string_view uid) {
  Statement select = database.Prepare("SELECT " TRIMTAB_OBJECTIVE_COLUMNS " FROM objective WHERE uid = ?");
  TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.Bind(uid).Step());
  if (!found) return NotFoundError(kObjectiveNotFound, "objective with uid", uid);
  return ReadObjectiveRow(select);
}

absl::StatusOr<JobRecord> FindJob(Database& database, std::string_view name) {
  Statement select = database.Prepare("SELECT " TRIMTAB_JOB_COLUMNS " FROM job WHERE name = ?");
  TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.Bind(name).Step());
  if (!found) return NotFoundError(kResourceNotFound, "operation", name);
  return ReadJobRow(select);
}

absl::Status InsertObjective(Database& database, const ObjectiveRecord& objective) {
  TRIMTAB_RETURN_IF_ERROR(
      database
          .Prepare("INSERT INTO objective (name, uid, request_id, request_hash, state, display_name, description, "
                   "method, method_config, pairs_hash, pair_count, held_out_count, default_strength, max_strength, "
                   "active_revision, error, model_fingerprint, operation, etag, create_time, update_time) "
                   "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
          .BindAll(objective.name, objective.uid, objective.request_id, objective.request_hash,
                   static_cast<int64_t>(objective.state), objective.display_name, objective.description,
                   objective.method, Blob{objective.method_config}, objective.pairs_hash, objective.pair_count,
                   objective.held_out_count, objective.default_strength, objective.max_strength,
                   objective.active_revision, Blob{objective.error}, objective.model_fingerprint, objective.operation,
                   objective.etag, absl::ToUnixNanos(objective.create_time), absl::ToUnixNanos(objective.update_time))
          .Run());
  return database.Prepare("INSERT INTO objective_pairs (objective_id, pairs) VALUES (last_insert_rowid(), ?)")
      .Bind(Blob{objective.pairs})
      .Run();
}

absl::Status InsertRevision(Database& database, int64_t objective_id, const RevisionRecord& revision) {
  return database
      .Prepare(
          "INSERT INTO revision (objective_id, revision, digest, model_fingerprint, method, method_config, "
          "pairs_hash, create_time, summary, vector) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .BindAll(objective_id, revision.revision, revision.digest, revision.model_fingerprint, revision.method,
               Blob{revision.method_config}, revision.pairs_hash, absl::ToUnixNanos(revision.create_time),
               Blob{revision.summary}, Blob{revision.vector})
      .Run();
}

absl::Status InsertJob(Database& database, const JobRecord& job, std::string_view objective_uid) {
  Statement insert = database.Prepare(
      "INSERT INTO job (name, kind, target, objective_uid, request_id, request_hash, state, cancel_requested, "
      "attempts, create_time, update_time, end_time, metadata, result, error, request) "
      "VALUES (?, ?, ?, ?, ?, ?, 1, 0, 0, ?, ?, NULL, ?, x'', x'', ?)");
  return insert
      .BindAll(job.name, job.kind, job.target, objective_uid, job.request_id, job.request_hash,
               absl::ToUnixNanos(job.create_time), absl::ToUnixNanos(job.update_time), Blob{job.metadata},
               Blob{job.request})
      .Run();
}

absl::Status EndJob(Database& database, const JobRecord& job, absl::Time now) {
  TRIMTAB_ASSIGN_OR_RETURN(const JobRecord stored, FindJob(database, job.name));
  if (HasEnded(stored.state)) {
    return absl::FailedPreconditionError(absl::StrCat("operation \"", job.name, "\" has ended already"));
  }
  const absl::Time end_time = job.end_time == absl::InfinitePast() ? now : job.end_time;
  TRIMTAB_RETURN_IF_ERROR(
      database
          .Prepare("UPDATE job SET state = ?, end_time = ?, update_time = ?, metadata = ?, result = ?, error = ? "
                   "WHERE name = ?")
          .BindAll(static_cast<int64_t>(job.state), absl::ToUnixNanos(end_time), absl::ToUnixNanos(now),
                   Blob{job.metadata.empty() ? stored.metadata : job.metadata}, Blob{job.result}, Blob{job.error},
                   job.name)
          .Run());
  return database.Prepare("DELETE FROM job_partial WHERE job_id = (SELECT id FROM job WHERE name = ?)")
      .Bind(job.name)
      .Run();
}

absl::Status InsertDriftReport(Database& database, const DriftRecord& report, absl::Time now) {
  return database.Prepare("INSERT INTO drift_report (name, create_time, report) VALUES (?, ?, ?)")
      .BindAll(report.name, absl::ToUnixNanos(now), Blob{report.report})
      .Run();
}

}  // namespace trimtab
