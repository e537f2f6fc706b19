// The durable state: objectives, immutable revisions, attributions, jobs, drift reports, the audit trail. One
// transaction per acknowledged change. Blobs are opaque here (serialized protos and SteeringVector bytes): the registry
// does not interpret them.
#ifndef TRIMTAB_SERVER_REGISTRY_REGISTRY_H_
#define TRIMTAB_SERVER_REGISTRY_REGISTRY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace trimtab {

struct ObjectiveRecord {
  enum class State { kCreating = 1, kActive = 2, kFailed = 3, kDisabled = 4 };
  std::string name;        // models/{m}/objectives/{o}
  std::string uid;         // distinguishes a re-created objective of the same name
  std::string request_id;  // of its creation; empty without
  std::string
      request_hash;  // sha256 of the creating request without request_id: the same id with another body is an error
  State state = State::kCreating;
  std::string display_name, description, method;
  std::string method_config;  // serialized google.protobuf.Any; empty: defaults
  std::string pairs;  // serialized training pairs and held-out pairs (input only; needed to resume and to refit)
  std::string pairs_hash;
  int64_t pair_count = 0, held_out_count = 0;
  std::optional<float> default_strength, max_strength;  // the operator's own
  int64_t active_revision = 0;
  std::string error;  // serialized google.rpc.Status when kFailed
  std::string model_fingerprint;
  std::string operation;  // operations/{id} of its first fit
  std::string refit;      // read only: operations/{id} of a fit of a further revision that has not ended; else empty
  std::string etag;       // changes with every change
  absl::Time create_time, update_time;
};

struct RevisionRecord {
  std::string objective;  // name
  int64_t revision = 0;   // 1, 2, ...
  std::string digest, model_fingerprint, method, method_config, pairs_hash;
  std::string vector;   // SteeringVector::Serialize()
  std::string summary;  // serialized trimtab.v1.RevisionSummary
  std::string curve;    // read only: serialized trimtab.v1.StrengthCurve; empty until CommitCurve
  absl::Time create_time;
};

struct JobRecord {
  enum class State { kQueued = 1, kRunning = 2, kSucceeded = 3, kFailed = 4, kCancelled = 5 };
  std::string name;     // operations/{id}
  std::string kind;     // "fit", "refit", "curve", "drift", "load", "unload"
  std::string target;   // the resource it works on
  std::string objective_uid;  // read only: of the objective that it fits; empty for other kinds
  std::string request;  // serialized request of its kind: enough to run it again after a crash
  std::string request_id, request_hash;
  State state = State::kQueued;
  bool cancel_requested = false;
  std::string metadata;  // serialized metadata message (progress)
  std::string result;    // serialized google.protobuf.Any when kSucceeded
  std::string error;     // serialized google.rpc.Status when kFailed or kCancelled
  int64_t attempts = 0;  // times it was started, less those that an orderly shutdown ended
  absl::Time create_time, update_time, end_time = absl::InfinitePast();
};

// What the end of a refit does to its objective beside adding the revision.
struct RefitRecord {
  bool keep_active = false;  // the active revision stays, if there is one
  std::string pairs;         // as ObjectiveRecord::pairs; empty: they stay, with their hash and counts
  int64_t pair_count = 0, held_out_count = 0;
};

// A model that was loaded at run time and is loaded again by the next start.
struct ModelRecord {
  std::string name;  // models/{m}
  std::string path;  // below --model_root
  std::string precision;
  int64_t kv_cache_mib = 0;
  std::string fingerprint;  // of the weights when it was loaded last
  absl::Time create_time;
};

struct DriftRecord {
  std::string name;    // models/{m}/driftReports/{id}
  std::string report;  // serialized trimtab.v1.DriftReport
  absl::Time create_time;
};

// One attribution page entry: serialized trimtab.v1.PairAttribution.
struct AttributionRecord {
  int64_t pair_index = 0;
  std::string attribution;
};

struct AuditRecord {
  int64_t id = 0;
  absl::Time time;
  std::string action, resource, detail;
};

// A page of names in order: those after `after` (empty: from the start), at most `limit`.
struct Page {
  std::string after;
  int64_t limit = 100;
};

// The changes that are audited, by the name that their audit entries carry.
inline constexpr std::string_view kRegistryActions[] = {
    "create_objective",    "update_objective",  "delete_objective",    "commit_fit",     "commit_fit_failure",
    "create_job",          "update_job",        "cancel_job",          "delete_job",     "commit_drift",
    "delete_drift_report", "commit_model_load", "commit_model_unload", "import_revision", "refit_objective",
    "disable_objective",   "enable_objective",  "commit_curve"};

// Told what happens in a registry, under its lock: must be quick and not call it.
class RegistryObserver {
 public:
  virtual ~RegistryObserver() = default;
  // A change was committed and audited; `action` is one of kRegistryActions.
  virtual void OnChange(std::string_view action) = 0;
  // The storage failed (UNAVAILABLE, DATA_LOSS, INTERNAL) in an action or another operation: nothing was changed.
  virtual void OnStorageFailure(std::string_view operation, const absl::Status& error) = 0;
};

// Thread-safe; calls may block on the disk, so never from a gRPC reaction. Errors beside those named: UNAVAILABLE when
// the storage fails (the change did not happen), with the cause.
class Registry {
 public:
  virtual ~Registry() = default;

  // Objective in state kCreating together with its queued fit job, or the existing one when name, request_id and
  // request_hash are the same (then `created` is false and its operation is returned). ALREADY_EXISTS
  // (OBJECTIVE_EXISTS) otherwise; INVALID_ARGUMENT for the same request_id with another body.
  struct Creation {
    ObjectiveRecord objective;
    bool created = false;
  };
  virtual absl::StatusOr<Creation> CreateObjective(const ObjectiveRecord& objective, const JobRecord& job) = 0;
  // OBJECTIVE_NOT_FOUND when absent.
  virtual absl::StatusOr<ObjectiveRecord> GetObjective(std::string_view name) = 0;
  // Of a model ("models/{m}"), by name, without `pairs`.
  virtual absl::StatusOr<std::vector<ObjectiveRecord>> ListObjectives(std::string_view model, const Page& page) = 0;
  // Replaces display_name, description, default_strength, max_strength, state, active_revision of the stored record.
  // ABORTED (ETAG_MISMATCH) when `expected_etag` is not empty and not the stored one. Returns the record with its new
  // etag and update_time.
  virtual absl::StatusOr<ObjectiveRecord> UpdateObjective(const ObjectiveRecord& objective,
                                                          std::string_view expected_etag) = 0;
  // With its revisions, their curves and attributions. Queued and running jobs of it or of a revision get
  // cancel_requested in the same transaction.
  virtual absl::Status DeleteObjective(std::string_view name, std::string_view expected_etag) = 0;

  // The end of a fit in one transaction: revision (number assigned: last + 1) and attributions stored, objective
  // kActive (kDisabled stays) with that active_revision, job kSucceeded with `result`. NOT_FOUND when the objective was
  // deleted (or re-created: uid differs) meanwhile. Here and in the other commits an empty job.metadata leaves the
  // stored one, and a job that has ended already is FAILED_PRECONDITION. `drift`: a report measured in the same job.
  // `refit`: of the job of a BeginRefit; the objective's method and configuration become the revision's.
  virtual absl::StatusOr<ObjectiveRecord> CommitFit(std::string_view uid, RevisionRecord revision,
                                                    const std::vector<AttributionRecord>& attributions,
                                                    const JobRecord& job,
                                                    const std::optional<DriftRecord>& drift = std::nullopt,
                                                    const std::optional<RefitRecord>& refit = std::nullopt) = 0;
  // The failure of a fit in one transaction: objective kFailed with `error` (unless it has a revision: then it stays as
  // it was), job kFailed or kCancelled.
  virtual absl::Status CommitFitFailure(std::string_view uid, const JobRecord& job) = 0;

  // Queues the fit of a further revision; the objective stays as it is. `pairs`: what to fit it on, as
  // ObjectiveRecord::pairs, kept as the job's partial result kRefitPairs; empty: the objective's. Idempotent by
  // job.request_id like CreateJob. OBJECTIVE_NOT_FOUND; ABORTED (ETAG_MISMATCH); FAILED_PRECONDITION
  // (OBJECTIVE_NOT_READY) while another fit of the objective waits or runs.
  virtual absl::StatusOr<JobRecord> BeginRefit(std::string_view objective, const JobRecord& job, std::string_view pairs,
                                               std::string_view expected_etag) = 0;
  static constexpr std::string_view kRefitPairs = "refit pairs";

  // A revision that no fit made, in one transaction: number assigned, the active one of the objective (kDisabled stays,
  // else kActive), which is created as `objective` says when there is none of its name. The same objective.request_id
  // and request_hash import once; then the stored objective is returned. INVALID_ARGUMENT for the same request_id with
  // another hash; with an `expected_etag` OBJECTIVE_NOT_FOUND and ABORTED (ETAG_MISMATCH); FAILED_PRECONDITION
  // (OBJECTIVE_NOT_READY) while a fit of the objective waits or runs.
  virtual absl::StatusOr<ObjectiveRecord> ImportRevision(const ObjectiveRecord& objective, RevisionRecord revision,
                                                         std::string_view expected_etag) = 0;

  virtual absl::StatusOr<RevisionRecord> GetRevision(std::string_view objective, int64_t revision) = 0;
  // By number, without `vector`.
  virtual absl::StatusOr<std::vector<RevisionRecord>> ListRevisions(std::string_view objective, int64_t after,
                                                                    int64_t limit) = 0;
  virtual absl::StatusOr<std::vector<AttributionRecord>> ListAttributions(std::string_view objective, int64_t revision,
                                                                          int64_t after_pair, int64_t limit) = 0;

  // The curve of a revision, in place of an earlier one, and its job's success in one transaction. REVISION_NOT_FOUND
  // when there is no such revision of that digest any more.
  virtual absl::Status CommitCurve(std::string_view objective, int64_t revision, std::string_view digest,
                                   std::string_view curve, const JobRecord& job) = 0;

  // A job that has no objective to create (drift, curve). Idempotent by (kind, request_id) like CreateObjective: an
  // earlier job is returned under its own name.
  virtual absl::StatusOr<JobRecord> CreateJob(const JobRecord& job) = 0;
  // The earlier job that CreateJob would return for `job`, if any. INVALID_ARGUMENT for the same request_id with
  // another body.
  virtual absl::StatusOr<std::optional<JobRecord>> FindEarlierJob(const JobRecord& job) = 0;
  virtual absl::StatusOr<JobRecord> GetJob(std::string_view name) = 0;
  virtual absl::StatusOr<std::vector<JobRecord>> ListJobs(const Page& page) = 0;
  // Queued and running jobs by creation time: what a restart takes up again.
  virtual absl::StatusOr<std::vector<JobRecord>> UnfinishedJobs() = 0;
  // Replaces state, attempts and metadata; cancel_requested is never taken back. A job that has ended keeps all but its
  // metadata (FAILED_PRECONDITION for another state). Updates that leave the state are progress: they and partial
  // results are durable, but neither audited nor counted as changes.
  virtual absl::Status UpdateJob(const JobRecord& job) = 0;
  virtual absl::Status RequestJobCancel(std::string_view name) = 0;
  virtual absl::Status DeleteJob(std::string_view name) = 0;  // FAILED_PRECONDITION while it is not done
  // Partial results of a job, durable when these return; dropped when the job ends.
  virtual absl::Status SavePartial(std::string_view job, std::string_view key, std::string_view bytes) = 0;
  virtual absl::StatusOr<std::optional<std::string>> LoadPartial(std::string_view job, std::string_view key) = 0;

  // Drift report and its job's success in one transaction.
  virtual absl::Status CommitDrift(const DriftRecord& report, const JobRecord& job) = 0;
  virtual absl::StatusOr<DriftRecord> GetDriftReport(std::string_view name) = 0;
  virtual absl::StatusOr<std::vector<DriftRecord>> ListDriftReports(std::string_view model, const Page& page) = 0;
  virtual absl::Status DeleteDriftReport(std::string_view name) = 0;

  // A model and its load job's success in one transaction; replaces what was remembered under its name.
  virtual absl::Status CommitModelLoad(const ModelRecord& model, const JobRecord& job) = 0;
  // Forgets the model, if it was remembered, in one transaction with its unload job's success.
  virtual absl::Status CommitModelUnload(std::string_view name, const JobRecord& job) = 0;
  // By name.
  virtual absl::StatusOr<std::vector<ModelRecord>> ListModels() = 0;
  // How often a start of the server began to load a remembered model and never got to EndModelStart: with this one.
  // Durable, so that a model that ends the server does not do so for ever. RESOURCE_NOT_FOUND when it is not
  // remembered. Neither of the two is audited.
  virtual absl::StatusOr<int64_t> BeginModelStart(std::string_view name) = 0;
  virtual absl::Status EndModelStart(std::string_view name) = 0;

  // Every change above (but progress) writes one audit entry in its own transaction.
  virtual absl::StatusOr<std::vector<AuditRecord>> ListAudit(int64_t after, int64_t limit) = 0;
  // Grows with every change; exported as trimtab_registry_revision.
  virtual int64_t revision() const = 0;
  // A random key made when the store was created; signs page tokens so that they survive restarts.
  virtual std::string secret() const = 0;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_REGISTRY_REGISTRY_H_
