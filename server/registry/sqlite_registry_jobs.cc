// Jobs, their partial results, drift reports. See sqlite_registry.h.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/registry/rows.h"
#include "server/registry/sqlite_registry.h"

namespace trimtab {
namespace {

absl::StatusOr<std::vector<JobRecord>> ReadJobs(Statement& select) {
  std::vector<JobRecord> records;
  for (;;) {
    TRIMTAB_ASSIGN_OR_RETURN(const bool row, select.Step());
    if (!row) return records;
    records.push_back(ReadJobRow(select));
  }
}

// The job that an earlier call with the same request id created, if any.
absl::StatusOr<std::optional<JobRecord>> FindEarlier(Database& database, const JobRecord& wanted) {
  if (wanted.request_id.empty()) return std::nullopt;
  Statement select = database.Prepare("SELECT " TRIMTAB_JOB_COLUMNS
                                      " FROM job WHERE kind = ? AND request_id = ? AND objective_uid = ''");
  TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.BindAll(wanted.kind, wanted.request_id).Step());
  if (!found) return std::nullopt;
  JobRecord earlier = ReadJobRow(select);
  if (earlier.request_hash != wanted.request_hash) {
    return FieldError({{"request_id", "was used for another request: choose a new one"}});
  }
  return earlier;
}

absl::StatusOr<int64_t> FindUnfinishedJobId(Database& database, std::string_view name) {
  Statement select = database.Prepare("SELECT id, state FROM job WHERE name = ?");
  TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.Bind(name).Step());
  if (!found) return NotFoundError(kResourceNotFound, "operation", name);
  if (HasEnded(static_cast<JobRecord::State>(select.Int(1)))) {
    return absl::FailedPreconditionError(absl::StrCat("operation \"", std::string(name), "\" has ended already"));
  }
  return select.Int(0);
}

std::string_view EndWord(JobRecord::State state) {
  switch (state) {
    case JobRecord::State::kSucceeded:
      return "succeeded";
    case JobRecord::State::kFailed:
      return "failed";
    case JobRecord::State::kCancelled:
      return "cancelled";
    default:
      return "unfinished";
  }
}

}  // namespace

absl::StatusOr<JobRecord> SqliteRegistry::CreateJob(const JobRecord& job) {
  JobRecord created = job;
  TRIMTAB_RETURN_IF_ERROR(Commit("create_job", job.name, [&](Change& change) -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(std::optional<JobRecord> earlier, FindEarlier(change.database, job));
    if (earlier) {
      created = *std::move(earlier);
      change.write = Write::kNothing;
      return absl::OkStatus();
    }
    created.state = JobRecord::State::kQueued;
    created.cancel_requested = false;
    created.attempts = 0;
    created.result.clear();
    created.error.clear();
    created.create_time = created.update_time = change.now;
    created.end_time = absl::InfinitePast();
    change.detail = absl::StrCat(job.kind, " of ", job.target);
    return InsertJob(change.database, created, "");
  }));
  return created;
}

absl::StatusOr<std::optional<JobRecord>> SqliteRegistry::FindEarlierJob(const JobRecord& job) {
  return Locked("get_job", [&](Database& database) { return FindEarlier(database, job); });
}

absl::StatusOr<JobRecord> SqliteRegistry::GetJob(std::string_view name) {
  return Locked("get_job", [&](Database& database) { return FindJob(database, name); });
}

absl::StatusOr<std::vector<JobRecord>> SqliteRegistry::ListJobs(const Page& page) {
  return Locked("list_jobs", [&](Database& database) {
    Statement select = database.Prepare("SELECT " TRIMTAB_JOB_COLUMNS " FROM job WHERE name > ? ORDER BY name LIMIT ?");
    select.BindAll(page.after, std::max<int64_t>(page.limit, 0));
    return ReadJobs(select);
  });
}

absl::StatusOr<std::vector<JobRecord>> SqliteRegistry::UnfinishedJobs() {
  return Locked("unfinished_jobs", [&](Database& database) {
    Statement select = database.Prepare("SELECT " TRIMTAB_JOB_COLUMNS " FROM job WHERE state <= 2 ORDER BY id");
    return ReadJobs(select);
  });
}

absl::Status SqliteRegistry::UpdateJob(const JobRecord& job) {
  return Commit("update_job", job.name, [&](Change& change) -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const JobRecord stored, FindJob(change.database, job.name));
    if (HasEnded(stored.state) && job.state != stored.state) {
      return absl::FailedPreconditionError(absl::StrCat("operation \"", job.name, "\" has ended already"));
    }
    if (!HasEnded(stored.state) && HasEnded(job.state)) {
      change.detail = std::string(EndWord(job.state));
      return EndJob(change.database, job, change.now);
    }
    if (job.state == stored.state) change.write = Write::kQuietly;
    change.detail = job.state == JobRecord::State::kRunning ? absl::StrCat("attempt ", job.attempts) : "queued again";
    return change.database
        .Prepare(
            "UPDATE job SET state = ?, attempts = ?, cancel_requested = max(cancel_requested, ?), metadata = ?, "
            "update_time = ? WHERE name = ?")
        .BindAll(static_cast<int64_t>(job.state), job.attempts, static_cast<int64_t>(job.cancel_requested),
                 Blob{job.metadata}, absl::ToUnixNanos(change.now), job.name)
        .Run();
  });
}

absl::Status SqliteRegistry::RequestJobCancel(std::string_view name) {
  return Commit("cancel_job", name, [&](Change& change) -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const JobRecord stored, FindJob(change.database, name));
    if (HasEnded(stored.state) || stored.cancel_requested) {
      change.write = Write::kNothing;
      return absl::OkStatus();
    }
    return change.database.Prepare("UPDATE job SET cancel_requested = 1, update_time = ? WHERE name = ?")
        .BindAll(absl::ToUnixNanos(change.now), name)
        .Run();
  });
}

absl::Status SqliteRegistry::DeleteJob(std::string_view name) {
  return Commit("delete_job", name, [&](Change& change) -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const JobRecord stored, FindJob(change.database, name));
    if (!HasEnded(stored.state)) {
      return ReasonError(absl::StatusCode::kFailedPrecondition, kOperationNotDone,
                         absl::StrCat("operation \"", std::string(name), "\" is not done: cancel it first"),
                         {{"operation", std::string(name)}});
    }
    return change.database.Prepare("DELETE FROM job WHERE name = ?").Bind(name).Run();
  });
}

absl::Status SqliteRegistry::SavePartial(std::string_view job, std::string_view key, std::string_view bytes) {
  return Locked("save_partial", [&](Database& database) -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const int64_t id, FindUnfinishedJobId(database, job));
    // One statement is a transaction of its own.
    return database.Prepare("INSERT OR REPLACE INTO job_partial (job_id, key, bytes) VALUES (?, ?, ?)")
        .BindAll(id, key, Blob{bytes})
        .Run();
  });
}

absl::StatusOr<std::optional<std::string>> SqliteRegistry::LoadPartial(std::string_view job, std::string_view key) {
  return Locked("load_partial", [&](Database& database) -> absl::StatusOr<std::optional<std::string>> {
    Statement select = database.Prepare(
        "SELECT bytes FROM job_partial WHERE job_id = (SELECT id FROM job WHERE name = ?) AND key = ?");
    TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.BindAll(job, key).Step());
    if (!found) return std::nullopt;
    return select.Text(0);
  });
}

absl::Status SqliteRegistry::CommitDrift(const DriftRecord& report, const JobRecord& job) {
  return Commit("commit_drift", report.name, [&](Change& change) -> absl::Status {
    TRIMTAB_RETURN_IF_ERROR(InsertDriftReport(change.database, report, change.now));
    change.detail = job.name;
    JobRecord ended = job;
    ended.state = JobRecord::State::kSucceeded;
    ended.error.clear();
    return EndJob(change.database, ended, change.now);
  });
}

absl::Status SqliteRegistry::CommitCurve(std::string_view objective, int64_t revision, std::string_view digest,
                                         std::string_view curve, const JobRecord& job) {
  const std::string name = absl::StrCat(std::string(objective), "/revisions/", revision);
  return Commit("commit_curve", name, [&](Change& change) -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveRow stored, FindObjective(change.database, objective));
    Statement select =
        change.database.Prepare("SELECT 1 FROM revision WHERE objective_id = ? AND revision = ? AND digest = ?");
    TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.BindAll(stored.id, revision, digest).Step());
    if (!found) return NotFoundError(kRevisionNotFound, "revision", name);
    TRIMTAB_RETURN_IF_ERROR(
        change.database
            .Prepare("INSERT OR REPLACE INTO strength_curve (objective_id, revision, curve) VALUES (?, ?, ?)")
            .BindAll(stored.id, revision, Blob{curve})
            .Run());
    change.detail = job.name;
    JobRecord ended = job;
    ended.state = JobRecord::State::kSucceeded;
    ended.error.clear();
    return EndJob(change.database, ended, change.now);
  });
}

absl::StatusOr<DriftRecord> SqliteRegistry::GetDriftReport(std::string_view name) {
  return Locked("get_drift_report", [&](Database& database) -> absl::StatusOr<DriftRecord> {
    Statement select = database.Prepare("SELECT name, create_time, report FROM drift_report WHERE name = ?");
    TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.Bind(name).Step());
    if (!found) return NotFoundError(kResourceNotFound, "drift report", name);
    return DriftRecord{
        .name = select.Text(0), .report = select.Text(2), .create_time = absl::FromUnixNanos(select.Int(1))};
  });
}

absl::StatusOr<std::vector<DriftRecord>> SqliteRegistry::ListDriftReports(std::string_view model, const Page& page) {
  return Locked("list_drift_reports", [&](Database& database) -> absl::StatusOr<std::vector<DriftRecord>> {
    Statement select = database.Prepare(
        "SELECT name, create_time, report FROM drift_report WHERE name > ? AND name > ? AND name < ? "
        "ORDER BY name LIMIT ?");
    const std::string folder = absl::StrCat(std::string(model), "/driftReports");
    select.BindAll(page.after, folder + "/", folder + "0", std::max<int64_t>(page.limit, 0));
    std::vector<DriftRecord> records;
    for (;;) {
      TRIMTAB_ASSIGN_OR_RETURN(const bool row, select.Step());
      if (!row) return records;
      records.push_back(
          {.name = select.Text(0), .report = select.Text(2), .create_time = absl::FromUnixNanos(select.Int(1))});
    }
  });
}

absl::Status SqliteRegistry::DeleteDriftReport(std::string_view name) {
  return Commit("delete_drift_report", name, [&](Change& change) -> absl::Status {
    TRIMTAB_RETURN_IF_ERROR(change.database.Prepare("DELETE FROM drift_report WHERE name = ?").Bind(name).Run());
    if (change.database.changes() == 0) return NotFoundError(kResourceNotFound, "drift report", name);
    return absl::OkStatus();
  });
}

}  // namespace trimtab
