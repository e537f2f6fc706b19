// Models that were loaded at run time. See sqlite_registry.h.
#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/registry/rows.h"
#include "server/registry/sqlite_registry.h"

namespace trimtab {

absl::Status SqliteRegistry::CommitModelLoad(const ModelRecord& model, const JobRecord& job) {
  return Commit("commit_model_load", model.name, [&](Change& change) -> absl::Status {
    TRIMTAB_RETURN_IF_ERROR(
        change.database
            .Prepare("INSERT OR REPLACE INTO model (name, path, precision, kv_cache_mib, fingerprint, create_time) "
                     "VALUES (?, ?, ?, ?, ?, ?)")
            .BindAll(model.name, model.path, model.precision, model.kv_cache_mib, model.fingerprint,
                     absl::ToUnixNanos(change.now))
            .Run());
    change.detail = absl::StrCat(job.name, " from ", model.path);
    JobRecord ended = job;
    ended.state = JobRecord::State::kSucceeded;
    ended.error.clear();
    return EndJob(change.database, ended, change.now);
  });
}

absl::Status SqliteRegistry::CommitModelUnload(std::string_view name, const JobRecord& job) {
  return Commit("commit_model_unload", name, [&](Change& change) -> absl::Status {
    TRIMTAB_RETURN_IF_ERROR(change.database.Prepare("DELETE FROM model WHERE name = ?").Bind(name).Run());
    change.detail = job.name;
    JobRecord ended = job;
    ended.state = JobRecord::State::kSucceeded;
    ended.error.clear();
    return EndJob(change.database, ended, change.now);
  });
}

absl::StatusOr<std::vector<ModelRecord>> SqliteRegistry::ListModels() {
  using Result = absl::StatusOr<std::vector<ModelRecord>>;
  return Locked("list_models", [&](Database& database) -> Result {
    Statement select = database.Prepare(
        "SELECT name, path, precision, kv_cache_mib, fingerprint, create_time FROM model ORDER BY name");
    std::vector<ModelRecord> records;
    for (;;) {
      TRIMTAB_ASSIGN_OR_RETURN(const bool row, select.Step());
      if (!row) return records;
      records.push_back({.name = select.Text(0),
                         .path = select.Text(1),
                         .precision = select.Text(2),
                         .kv_cache_mib = select.Int(3),
                         .fingerprint = select.Text(4),
                         .create_time = absl::FromUnixNanos(select.Int(5))});
    }
  });
}

absl::StatusOr<int64_t> SqliteRegistry::BeginModelStart(std::string_view name) {
  int64_t starts = 0;
  TRIMTAB_RETURN_IF_ERROR(Commit("begin_model_start", name, [&](Change& change) -> absl::Status {
    change.write = Write::kQuietly;
    TRIMTAB_RETURN_IF_ERROR(
        change.database.Prepare("UPDATE model SET unfinished_starts = unfinished_starts + 1 WHERE name = ?")
            .Bind(name)
            .Run());
    Statement select = change.database.Prepare("SELECT unfinished_starts FROM model WHERE name = ?");
    TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.Bind(name).Step());
    if (!found) return NotFoundError(kResourceNotFound, "remembered model", name);
    starts = select.Int(0);
    return absl::OkStatus();
  }));
  return starts;
}

absl::Status SqliteRegistry::EndModelStart(std::string_view name) {
  return Commit("end_model_start", name, [&](Change& change) -> absl::Status {
    change.write = Write::kQuietly;
    return change.database.Prepare("UPDATE model SET unfinished_starts = 0 WHERE name = ?").Bind(name).Run();
  });
}

}  // namespace trimtab
