// Objectives, their revisions and attributions. See sqlite_registry.h.
#include <sys/random.h>

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"
#include "server/registry/rows.h"
#include "server/registry/sqlite_registry.h"

namespace trimtab {
namespace {

// 32 random hexadecimal digits.
std::string NewUid() {
  std::array<uint8_t, 16> bytes{};
  // Cannot fail or be cut short for so few bytes once the kernel's pool is ready, which it waits for.
  [[maybe_unused]] const ssize_t size = getrandom(bytes.data(), bytes.size(), 0);
  return ToHex(bytes.data(), bytes.size());
}

// Differs after every change of every objective.
std::string MakeEtag(std::string_view uid, int64_t change) {
  return Sha256().UpdateField(uid).UpdateField(absl::StrCat(change)).FinishHex().substr(0, 16);
}

absl::Status CheckEtag(const ObjectiveRecord& stored, std::string_view expected) {
  if (expected.empty() || expected == stored.etag) return absl::OkStatus();
  return ReasonError(absl::StatusCode::kAborted, kEtagMismatch,
                     absl::StrCat("objective \"", stored.name, "\" has changed meanwhile: read it again"),
                     {{"objective", stored.name}, {"etag", stored.etag}});
}

absl::Status ReadPairs(Database& database, ObjectiveRow& objective) {
  Statement select = database.Prepare("SELECT pairs FROM objective_pairs WHERE objective_id = ?");
  TRIMTAB_RETURN_IF_ERROR(select.Bind(objective.id).Step().status());
  objective.record.pairs = select.Text(0);
  return absl::OkStatus();
}

// The objective's last fit is the one that made `revision`.
absl::Status TakeOver(Database& database, ObjectiveRow& objective, const RevisionRecord& revision,
                      const RefitRecord& refit) {
  ObjectiveRecord& record = objective.record;
  record.method = revision.method;
  record.method_config = revision.method_config;
  if (refit.pairs.empty()) return absl::OkStatus();
  record.pairs_hash = revision.pairs_hash;
  record.pair_count = refit.pair_count;
  record.held_out_count = refit.held_out_count;
  return database.Prepare("INSERT OR REPLACE INTO objective_pairs (objective_id, pairs) VALUES (?, ?)")
      .BindAll(objective.id, Blob{refit.pairs})
      .Run();
}

absl::StatusOr<bool> RevisionExists(Database& database, int64_t objective_id, int64_t revision) {
  return database.Prepare("SELECT 1 FROM revision WHERE objective_id = ? AND revision = ?")
      .BindAll(objective_id, revision)
      .Step();
}

absl::Status RevisionNotFound(std::string_view objective, int64_t revision) {
  return NotFoundError(kRevisionNotFound, "revision", absl::StrCat(std::string(objective), "/revisions/", revision));
}

// Stores what changes in the life of an objective, with a new etag and update time.
absl::Status WriteObjective(Database& database, ObjectiveRow& objective, int64_t change, absl::Time now) {
  ObjectiveRecord& record = objective.record;
  record.etag = MakeEtag(record.uid, change);
  record.update_time = now;
  return database
      .Prepare(
          "UPDATE objective SET display_name = ?, description = ?, default_strength = ?, max_strength = ?, "
          "state = ?, active_revision = ?, error = ?, method = ?, method_config = ?, pairs_hash = ?, pair_count = ?, "
          "held_out_count = ?, etag = ?, update_time = ? WHERE id = ?")
      .BindAll(record.display_name, record.description, record.default_strength, record.max_strength,
               static_cast<int64_t>(record.state), record.active_revision, Blob{record.error}, record.method,
               Blob{record.method_config}, record.pairs_hash, record.pair_count, record.held_out_count, record.etag,
               absl::ToUnixNanos(record.update_time), objective.id)
      .Run();
}

// The objective that an earlier call with the same request id created, if any.
absl::StatusOr<std::optional<ObjectiveRow>> FindEarlier(Database& database, const ObjectiveRecord& wanted) {
  if (wanted.request_id.empty()) return std::nullopt;
  Statement select = database.Prepare("SELECT " TRIMTAB_OBJECTIVE_COLUMNS " FROM objective WHERE request_id = ?");
  TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.Bind(wanted.request_id).Step());
  if (!found) return std::nullopt;
  ObjectiveRow earlier = ReadObjectiveRow(select);
  if (earlier.record.name != wanted.name || earlier.record.request_hash != wanted.request_hash) {
    return FieldError({{"request_id", "was used for another request: choose a new one"}});
  }
  return earlier;
}

// The refit that an earlier call with the same request id queued, if any.
absl::StatusOr<std::optional<JobRecord>> FindEarlierRefit(Database& database, const JobRecord& wanted) {
  if (wanted.request_id.empty()) return std::nullopt;
  Statement select =
      database.Prepare("SELECT " TRIMTAB_JOB_COLUMNS " FROM job WHERE kind = 'refit' AND request_id = ?");
  TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.Bind(wanted.request_id).Step());
  if (!found) return std::nullopt;
  JobRecord earlier = ReadJobRow(select);
  if (earlier.request_hash != wanted.request_hash) {
    return FieldError({{"request_id", "was used for another request: choose a new one"}});
  }
  return earlier;
}

// The objective that an earlier import with the same request id went to, if any.
absl::StatusOr<std::optional<ObjectiveRow>> FindEarlierImport(Database& database, const ObjectiveRecord& wanted) {
  if (wanted.request_id.empty()) return std::nullopt;
  Statement select = database.Prepare("SELECT request_hash, objective_id FROM import_request WHERE request_id = ?");
  TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.Bind(wanted.request_id).Step());
  if (!found) return std::nullopt;
  if (select.Text(0) != wanted.request_hash) {
    return FieldError({{"request_id", "was used for another request: choose a new one"}});
  }
  Statement objective = database.Prepare("SELECT " TRIMTAB_OBJECTIVE_COLUMNS " FROM objective WHERE id = ?");
  TRIMTAB_RETURN_IF_ERROR(objective.Bind(select.Int(1)).Step().status());
  return ReadObjectiveRow(objective);
}

// Another fit would take the place of what this call brings.
absl::Status CheckNoFit(Database& database, const ObjectiveRecord& objective) {
  Statement select = database.Prepare(
      "SELECT name FROM job WHERE target = ? AND state <= 2 AND kind IN ('fit', 'refit') AND objective_uid = ?");
  TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.BindAll(objective.name, objective.uid).Step());
  if (!found) return absl::OkStatus();
  const std::string job = select.Text(0);
  return ReasonError(absl::StatusCode::kFailedPrecondition, kObjectiveNotReady,
                     absl::StrCat("objective \"", objective.name, "\" is being fitted: wait for ", job),
                     {{"objective", objective.name}, {"operation", job}});
}

absl::StatusOr<int64_t> LastRevision(Database& database, int64_t objective_id) {
  Statement select = database.Prepare("SELECT max(revision) FROM revision WHERE objective_id = ?");
  TRIMTAB_RETURN_IF_ERROR(select.Bind(objective_id).Step().status());
  return select.Int(0);
}

// A job may end a fit only of the objective that it was created for.
absl::Status CheckJobBelongs(Database& database, const JobRecord& job, std::string_view uid) {
  Statement select = database.Prepare("SELECT objective_uid FROM job WHERE name = ?");
  TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.Bind(job.name).Step());
  if (!found) return NotFoundError(kResourceNotFound, "operation", job.name);
  const std::string owner = select.Text(0);
  if (owner.empty() || owner == uid) return absl::OkStatus();
  return NotFoundError(kObjectiveNotFound, "objective with uid", owner);
}

absl::Status InsertAttributions(Database& database, int64_t objective_id, int64_t revision,
                                const std::vector<AttributionRecord>& attributions) {
  for (const AttributionRecord& attribution : attributions) {
    TRIMTAB_RETURN_IF_ERROR(
        database
            .Prepare("INSERT INTO attribution (objective_id, revision, pair_index, attribution) VALUES (?, ?, ?, ?)")
            .BindAll(objective_id, revision, attribution.pair_index, Blob{attribution.attribution})
            .Run());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Registry::Creation> SqliteRegistry::CreateObjective(const ObjectiveRecord& objective,
                                                                   const JobRecord& job) {
  Creation creation;
  TRIMTAB_RETURN_IF_ERROR(Commit("create_objective", objective.name, [&](Change& change) -> absl::Status {
    Database& database = change.database;
    TRIMTAB_ASSIGN_OR_RETURN(std::optional<ObjectiveRow> earlier, FindEarlier(database, objective));
    if (earlier) {
      TRIMTAB_RETURN_IF_ERROR(ReadPairs(database, *earlier));
      creation.objective = std::move(earlier->record);
      change.write = Write::kNothing;
      return absl::OkStatus();
    }
    const absl::Status existing = FindObjective(database, objective.name).status();
    if (existing.ok()) {
      return ReasonError(absl::StatusCode::kAlreadyExists, kObjectiveExists,
                         absl::StrCat("objective \"", objective.name, "\" exists already"),
                         {{"objective", objective.name}});
    }
    if (!absl::IsNotFound(existing)) return existing;
    ObjectiveRecord& created = creation.objective;
    created = objective;
    if (created.uid.empty()) created.uid = NewUid();
    created.state = ObjectiveRecord::State::kCreating;
    created.active_revision = 0;
    created.error.clear();
    created.operation = job.name;
    created.etag = MakeEtag(created.uid, change.id);
    created.create_time = created.update_time = change.now;
    TRIMTAB_RETURN_IF_ERROR(InsertObjective(database, created));
    JobRecord queued = job;
    queued.create_time = queued.update_time = change.now;
    TRIMTAB_RETURN_IF_ERROR(InsertJob(database, queued, created.uid));
    creation.created = true;
    change.detail = absl::StrCat("uid ", created.uid, ", ", job.name);
    return absl::OkStatus();
  }));
  return creation;
}

absl::StatusOr<ObjectiveRecord> SqliteRegistry::GetObjective(std::string_view name) {
  return Locked("get_objective", [&](Database& database) -> absl::StatusOr<ObjectiveRecord> {
    TRIMTAB_ASSIGN_OR_RETURN(ObjectiveRow objective, FindObjective(database, name));
    TRIMTAB_RETURN_IF_ERROR(ReadPairs(database, objective));
    return std::move(objective.record);
  });
}

absl::StatusOr<std::vector<ObjectiveRecord>> SqliteRegistry::ListObjectives(std::string_view model, const Page& page) {
  return Locked("list_objectives", [&](Database& database) -> absl::StatusOr<std::vector<ObjectiveRecord>> {
    Statement select =
        database.Prepare("SELECT " TRIMTAB_OBJECTIVE_COLUMNS
                         " FROM objective WHERE name > ? AND name > ? AND name < ? ORDER BY name LIMIT ?");
    // '0' follows '/': the range holds every name below the model's objectives.
    const std::string folder = absl::StrCat(std::string(model), "/objectives");
    select.BindAll(page.after, folder + "/", folder + "0", std::max<int64_t>(page.limit, 0));
    std::vector<ObjectiveRecord> records;
    for (;;) {
      TRIMTAB_ASSIGN_OR_RETURN(const bool row, select.Step());
      if (!row) return records;
      records.push_back(ReadObjectiveRow(select).record);
    }
  });
}

absl::StatusOr<ObjectiveRecord> SqliteRegistry::UpdateObjective(const ObjectiveRecord& objective,
                                                                std::string_view expected_etag) {
  ObjectiveRecord updated;
  TRIMTAB_RETURN_IF_ERROR(Commit("update_objective", objective.name, [&](Change& change) -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(ObjectiveRow stored, FindObjective(change.database, objective.name));
    ObjectiveRecord& record = stored.record;
    TRIMTAB_RETURN_IF_ERROR(CheckEtag(record, expected_etag));
    if (objective.active_revision != 0) {
      TRIMTAB_ASSIGN_OR_RETURN(const bool exists,
                               RevisionExists(change.database, stored.id, objective.active_revision));
      if (!exists) return RevisionNotFound(record.name, objective.active_revision);
    }
    change.detail = absl::StrCat("uid ", record.uid, ", revision ", objective.active_revision);
    if (objective.state != record.state) {
      if (objective.state == ObjectiveRecord::State::kDisabled) change.action = "disable_objective";
      if (record.state == ObjectiveRecord::State::kDisabled) change.action = "enable_objective";
    }
    record.display_name = objective.display_name;
    record.description = objective.description;
    record.default_strength = objective.default_strength;
    record.max_strength = objective.max_strength;
    record.state = objective.state;
    record.active_revision = objective.active_revision;
    TRIMTAB_RETURN_IF_ERROR(WriteObjective(change.database, stored, change.id, change.now));
    TRIMTAB_RETURN_IF_ERROR(ReadPairs(change.database, stored));
    updated = std::move(record);
    return absl::OkStatus();
  }));
  return updated;
}

absl::Status SqliteRegistry::DeleteObjective(std::string_view name, std::string_view expected_etag) {
  return Commit("delete_objective", name, [&](Change& change) -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveRow stored, FindObjective(change.database, name));
    TRIMTAB_RETURN_IF_ERROR(CheckEtag(stored.record, expected_etag));
    change.detail = absl::StrCat("uid ", stored.record.uid);
    TRIMTAB_RETURN_IF_ERROR(
        change.database
            .Prepare("UPDATE job SET cancel_requested = 1, update_time = ? WHERE state <= 2 AND (target = ? OR "
                     "(target > ? AND target < ?))")
            // '0' follows '/': the range holds every name below the objective's.
            .BindAll(absl::ToUnixNanos(change.now), name, std::string(name) + "/", std::string(name) + "0")
            .Run());
    return change.database.Prepare("DELETE FROM objective WHERE id = ?").Bind(stored.id).Run();
  });
}

absl::StatusOr<ObjectiveRecord> SqliteRegistry::CommitFit(std::string_view uid, RevisionRecord revision,
                                                          const std::vector<AttributionRecord>& attributions,
                                                          const JobRecord& job,
                                                          const std::optional<DriftRecord>& drift,
                                                          const std::optional<RefitRecord>& refit) {
  ObjectiveRecord committed;
  TRIMTAB_RETURN_IF_ERROR(Commit("commit_fit", revision.objective, [&](Change& change) -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(ObjectiveRow stored, FindObjectiveByUid(change.database, uid));
    TRIMTAB_RETURN_IF_ERROR(CheckJobBelongs(change.database, job, uid));
    ObjectiveRecord& record = stored.record;
    TRIMTAB_ASSIGN_OR_RETURN(const int64_t last, LastRevision(change.database, stored.id));
    revision.revision = last + 1;
    revision.create_time = change.now;
    TRIMTAB_RETURN_IF_ERROR(InsertRevision(change.database, stored.id, revision));
    TRIMTAB_RETURN_IF_ERROR(InsertAttributions(change.database, stored.id, revision.revision, attributions));
    if (drift) TRIMTAB_RETURN_IF_ERROR(InsertDriftReport(change.database, *drift, change.now));
    if (refit) TRIMTAB_RETURN_IF_ERROR(TakeOver(change.database, stored, revision, *refit));
    if (!refit || !refit->keep_active || record.active_revision == 0) record.active_revision = revision.revision;
    record.error.clear();
    if (record.state != ObjectiveRecord::State::kDisabled) record.state = ObjectiveRecord::State::kActive;
    TRIMTAB_RETURN_IF_ERROR(WriteObjective(change.database, stored, change.id, change.now));
    JobRecord ended = job;
    ended.state = JobRecord::State::kSucceeded;
    ended.error.clear();
    TRIMTAB_RETURN_IF_ERROR(EndJob(change.database, ended, change.now));
    TRIMTAB_RETURN_IF_ERROR(ReadPairs(change.database, stored));
    change.resource = record.name;
    change.detail = absl::StrCat("uid ", record.uid, ", revision ", revision.revision, ", digest ", revision.digest,
                                 ", ", job.name);
    committed = std::move(record);
    return absl::OkStatus();
  }));
  return committed;
}

absl::Status SqliteRegistry::CommitFitFailure(std::string_view uid, const JobRecord& job) {
  return Commit("commit_fit_failure", job.target, [&](Change& change) -> absl::Status {
    if (job.state != JobRecord::State::kFailed && job.state != JobRecord::State::kCancelled) {
      return absl::InvalidArgumentError("a fit that failed ends its job as failed or cancelled");
    }
    TRIMTAB_RETURN_IF_ERROR(EndJob(change.database, job, change.now));
    change.detail = absl::StrCat("uid ", std::string(uid), ", ", job.name,
                                 job.state == JobRecord::State::kCancelled ? " cancelled" : " failed");
    absl::StatusOr<ObjectiveRow> stored = FindObjectiveByUid(change.database, uid);
    if (absl::IsNotFound(stored.status())) return absl::OkStatus();  // deleted meanwhile: only the job is left
    TRIMTAB_RETURN_IF_ERROR(stored.status());
    change.resource = stored->record.name;
    if (stored->record.active_revision != 0) return absl::OkStatus();
    stored->record.state = ObjectiveRecord::State::kFailed;
    stored->record.error = job.error;
    return WriteObjective(change.database, *stored, change.id, change.now);
  });
}

absl::StatusOr<JobRecord> SqliteRegistry::BeginRefit(std::string_view objective, const JobRecord& job,
                                                     std::string_view pairs, std::string_view expected_etag) {
  JobRecord queued = job;
  TRIMTAB_RETURN_IF_ERROR(Commit("refit_objective", objective, [&](Change& change) -> absl::Status {
    Database& database = change.database;
    TRIMTAB_ASSIGN_OR_RETURN(std::optional<JobRecord> earlier, FindEarlierRefit(database, job));
    if (earlier) {
      queued = *std::move(earlier);
      change.write = Write::kNothing;
      return absl::OkStatus();
    }
    TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveRow stored, FindObjective(database, objective));
    TRIMTAB_RETURN_IF_ERROR(CheckEtag(stored.record, expected_etag));
    TRIMTAB_RETURN_IF_ERROR(CheckNoFit(database, stored.record));
    queued.create_time = queued.update_time = change.now;
    queued.objective_uid = stored.record.uid;
    TRIMTAB_RETURN_IF_ERROR(InsertJob(database, queued, queued.objective_uid));
    change.detail = absl::StrCat("uid ", stored.record.uid, ", ", job.name);
    if (pairs.empty()) return absl::OkStatus();
    return database.Prepare("INSERT INTO job_partial (job_id, key, bytes) VALUES (last_insert_rowid(), ?, ?)")
        .BindAll(kRefitPairs, Blob{pairs})
        .Run();
  }));
  return queued;
}

absl::StatusOr<ObjectiveRecord> SqliteRegistry::ImportRevision(const ObjectiveRecord& objective,
                                                               RevisionRecord revision,
                                                               std::string_view expected_etag) {
  ObjectiveRecord imported;
  TRIMTAB_RETURN_IF_ERROR(Commit("import_revision", objective.name, [&](Change& change) -> absl::Status {
    Database& database = change.database;
    TRIMTAB_ASSIGN_OR_RETURN(std::optional<ObjectiveRow> earlier, FindEarlierImport(database, objective));
    if (earlier) {
      TRIMTAB_RETURN_IF_ERROR(ReadPairs(database, *earlier));
      imported = std::move(earlier->record);
      change.write = Write::kNothing;
      return absl::OkStatus();
    }
    absl::StatusOr<ObjectiveRow> stored = FindObjective(database, objective.name);
    if (absl::IsNotFound(stored.status()) && expected_etag.empty()) {
      ObjectiveRecord created = objective;
      created.request_id.clear();
      created.request_hash.clear();
      if (created.uid.empty()) created.uid = NewUid();
      created.state = ObjectiveRecord::State::kActive;
      created.active_revision = 0;
      created.create_time = created.update_time = change.now;
      TRIMTAB_RETURN_IF_ERROR(InsertObjective(database, created));
      stored = FindObjective(database, objective.name);
    }
    TRIMTAB_RETURN_IF_ERROR(stored.status());
    ObjectiveRecord& record = stored->record;
    TRIMTAB_RETURN_IF_ERROR(CheckEtag(record, expected_etag));
    TRIMTAB_RETURN_IF_ERROR(CheckNoFit(database, record));
    TRIMTAB_ASSIGN_OR_RETURN(const int64_t last, LastRevision(database, stored->id));
    revision.revision = last + 1;
    revision.create_time = change.now;
    TRIMTAB_RETURN_IF_ERROR(InsertRevision(database, stored->id, revision));
    record.active_revision = revision.revision;
    record.error.clear();
    if (record.state != ObjectiveRecord::State::kDisabled) record.state = ObjectiveRecord::State::kActive;
    TRIMTAB_RETURN_IF_ERROR(WriteObjective(database, *stored, change.id, change.now));
    if (!objective.request_id.empty()) {
      TRIMTAB_RETURN_IF_ERROR(
          database.Prepare("INSERT INTO import_request (request_id, request_hash, objective_id) VALUES (?, ?, ?)")
              .BindAll(objective.request_id, objective.request_hash, stored->id)
              .Run());
    }
    TRIMTAB_RETURN_IF_ERROR(ReadPairs(database, *stored));
    change.detail = absl::StrCat("uid ", record.uid, ", revision ", revision.revision, ", digest ", revision.digest);
    imported = std::move(record);
    return absl::OkStatus();
  }));
  return imported;
}

absl::StatusOr<RevisionRecord> SqliteRegistry::GetRevision(std::string_view objective, int64_t revision) {
  return Locked("get_revision", [&](Database& database) -> absl::StatusOr<RevisionRecord> {
    TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveRow stored, FindObjective(database, objective));
    Statement select = database.Prepare("SELECT " TRIMTAB_REVISION_COLUMNS
                                        ", vector FROM revision WHERE objective_id = ? AND revision = ?");
    TRIMTAB_ASSIGN_OR_RETURN(const bool found, select.BindAll(stored.id, revision).Step());
    if (!found) return RevisionNotFound(objective, revision);
    RevisionRecord record = ReadRevisionRow(select, objective);
    record.vector = select.Text(kRevisionColumns);
    return record;
  });
}

absl::StatusOr<std::vector<RevisionRecord>> SqliteRegistry::ListRevisions(std::string_view objective, int64_t after,
                                                                          int64_t limit) {
  return Locked("list_revisions", [&](Database& database) -> absl::StatusOr<std::vector<RevisionRecord>> {
    TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveRow stored, FindObjective(database, objective));
    Statement select =
        database.Prepare("SELECT " TRIMTAB_REVISION_COLUMNS
                         " FROM revision WHERE objective_id = ? AND revision > ? ORDER BY revision LIMIT ?");
    select.BindAll(stored.id, after, std::max<int64_t>(limit, 0));
    std::vector<RevisionRecord> records;
    for (;;) {
      TRIMTAB_ASSIGN_OR_RETURN(const bool row, select.Step());
      if (!row) return records;
      records.push_back(ReadRevisionRow(select, objective));
    }
  });
}

absl::StatusOr<std::vector<AttributionRecord>> SqliteRegistry::ListAttributions(std::string_view objective,
                                                                                int64_t revision, int64_t after_pair,
                                                                                int64_t limit) {
  return Locked("list_attributions", [&](Database& database) -> absl::StatusOr<std::vector<AttributionRecord>> {
    TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveRow stored, FindObjective(database, objective));
    TRIMTAB_ASSIGN_OR_RETURN(const bool exists, RevisionExists(database, stored.id, revision));
    if (!exists) return RevisionNotFound(objective, revision);
    Statement select = database.Prepare(
        "SELECT pair_index, attribution FROM attribution WHERE objective_id = ? AND revision = ? AND pair_index > ? "
        "ORDER BY pair_index LIMIT ?");
    select.BindAll(stored.id, revision, after_pair, std::max<int64_t>(limit, 0));
    std::vector<AttributionRecord> records;
    for (;;) {
      TRIMTAB_ASSIGN_OR_RETURN(const bool row, select.Step());
      if (!row) return records;
      records.push_back({.pair_index = select.Int(0), .attribution = select.Text(1)});
    }
  });
}

}  // namespace trimtab
