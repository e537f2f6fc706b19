// How records and rows correspond: the columns of each SELECT and the functions that read them. Used by SqliteRegistry
// under its mutex.
#ifndef TRIMTAB_SERVER_REGISTRY_ROWS_H_
#define TRIMTAB_SERVER_REGISTRY_ROWS_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/registry/registry.h"
#include "server/registry/sqlite.h"

namespace trimtab {

// An objective without its pairs, with its key in the tables.
struct ObjectiveRow {
  int64_t id = 0;
  ObjectiveRecord record;
};

// Column lists are macros so that whole statements stay literals, which the cache of prepared statements needs.
#define TRIMTAB_OBJECTIVE_COLUMNS                                                                                      \
  "id, name, uid, request_id, request_hash, state, display_name, description, method, method_config, pairs_hash, "     \
  "pair_count, held_out_count, default_strength, max_strength, active_revision, error, model_fingerprint, operation, " \
  "etag, create_time, update_time, (SELECT job.name FROM job WHERE job.target = objective.name AND job.state <= 2 "    \
  "AND job.kind = 'refit' AND job.objective_uid = objective.uid)"
ObjectiveRow ReadObjectiveRow(const Statement& row);

#define TRIMTAB_REVISION_COLUMNS                                                                   \
  "revision, digest, model_fingerprint, method, method_config, pairs_hash, create_time, summary, " \
  "(SELECT curve FROM strength_curve WHERE strength_curve.objective_id = revision.objective_id "   \
  "AND strength_curve.revision = revision.revision)"
inline constexpr int kRevisionColumns = 9;
// `vector` is left empty: lists do not read megabytes.
RevisionRecord ReadRevisionRow(const Statement& row, std::string_view objective);

#define TRIMTAB_JOB_COLUMNS                                                                                     \
  "name, kind, target, request_id, request_hash, state, cancel_requested, attempts, create_time, update_time, " \
  "end_time, metadata, result, error, request, objective_uid"
JobRecord ReadJobRow(const Statement& row);

// OBJECTIVE_NOT_FOUND when absent.
absl::StatusOr<ObjectiveRow> FindObjective(Database& database, std::string_view name);
absl::StatusOr<ObjectiveRow> FindObjectiveByUid(Database& database, std::string_view uid);
// RESOURCE_NOT_FOUND when absent.
absl::StatusOr<JobRecord> FindJob(Database& database, std::string_view name);

absl::Status InsertObjective(Database& database, const ObjectiveRecord& objective);
absl::Status InsertRevision(Database& database, int64_t objective_id, const RevisionRecord& revision);
// `objective_uid`: of the objective that the job fits, or empty.
absl::Status InsertJob(Database& database, const JobRecord& job, std::string_view objective_uid);

// Ends a queued or running job with job.state, drops its partial results and stores its result, error and end time;
// metadata too unless it is empty. FAILED_PRECONDITION when it has ended already.
absl::Status EndJob(Database& database, const JobRecord& job, absl::Time now);

inline bool HasEnded(JobRecord::State state) { return state > JobRecord::State::kRunning; }

absl::Status InsertDriftReport(Database& database, const DriftRecord& report, absl::Time now);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_REGISTRY_ROWS_H_
