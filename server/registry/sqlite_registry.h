// The default Registry: one SQLite file (write-ahead log, synchronous=FULL), opened by one server at a time. Made by
// the composition root. Thread-safe: one mutex over one connection.
#ifndef TRIMTAB_SERVER_REGISTRY_SQLITE_REGISTRY_H_
#define TRIMTAB_SERVER_REGISTRY_SQLITE_REGISTRY_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/base/clock.h"
#include "server/registry/registry.h"
#include "server/registry/sqlite.h"

namespace trimtab {

// What was acknowledged is on the disk; what was not has left no trace. The file and its side files have mode 0600.
class SqliteRegistry final : public Registry {
 public:
  // Opens or creates `path`, whose folder must exist. FAILED_PRECONDITION when another server has it open, or it is not
  // ours, or a newer server wrote it; DATA_LOSS when it is damaged; UNAVAILABLE when the storage fails. `clock` and
  // `observer` (if any) must outlive the registry.
  static absl::StatusOr<std::unique_ptr<SqliteRegistry>> Open(const std::string& path, const Clock& clock,
                                                              RegistryObserver* observer = nullptr);
  ~SqliteRegistry() override;

  absl::StatusOr<Creation> CreateObjective(const ObjectiveRecord& objective, const JobRecord& job) override;
  absl::StatusOr<ObjectiveRecord> GetObjective(std::string_view name) override;
  absl::StatusOr<std::vector<ObjectiveRecord>> ListObjectives(std::string_view model, const Page& page) override;
  absl::StatusOr<ObjectiveRecord> UpdateObjective(const ObjectiveRecord& objective,
                                                  std::string_view expected_etag) override;
  absl::Status DeleteObjective(std::string_view name, std::string_view expected_etag) override;
  absl::StatusOr<ObjectiveRecord> CommitFit(std::string_view uid, RevisionRecord revision,
                                            const std::vector<AttributionRecord>& attributions, const JobRecord& job,
                                            const std::optional<DriftRecord>& drift = std::nullopt,
                                            const std::optional<RefitRecord>& refit = std::nullopt) override;
  absl::Status CommitFitFailure(std::string_view uid, const JobRecord& job) override;
  absl::StatusOr<JobRecord> BeginRefit(std::string_view objective, const JobRecord& job, std::string_view pairs,
                                       std::string_view expected_etag) override;
  absl::StatusOr<ObjectiveRecord> ImportRevision(const ObjectiveRecord& objective, RevisionRecord revision,
                                                 std::string_view expected_etag) override;
  absl::StatusOr<RevisionRecord> GetRevision(std::string_view objective, int64_t revision) override;
  absl::StatusOr<std::vector<RevisionRecord>> ListRevisions(std::string_view objective, int64_t after,
                                                            int64_t limit) override;
  absl::StatusOr<std::vector<AttributionRecord>> ListAttributions(std::string_view objective, int64_t revision,
                                                                  int64_t after_pair, int64_t limit) override;

  absl::Status CommitCurve(std::string_view objective, int64_t revision, std::string_view digest,
                           std::string_view curve, const JobRecord& job) override;
  absl::StatusOr<JobRecord> CreateJob(const JobRecord& job) override;
  absl::StatusOr<std::optional<JobRecord>> FindEarlierJob(const JobRecord& job) override;
  absl::StatusOr<JobRecord> GetJob(std::string_view name) override;
  absl::StatusOr<std::vector<JobRecord>> ListJobs(const Page& page) override;
  absl::StatusOr<std::vector<JobRecord>> UnfinishedJobs() override;
  absl::Status UpdateJob(const JobRecord& job) override;
  absl::Status RequestJobCancel(std::string_view name) override;
  absl::Status DeleteJob(std::string_view name) override;
  absl::Status SavePartial(std::string_view job, std::string_view key, std::string_view bytes) override;
  absl::StatusOr<std::optional<std::string>> LoadPartial(std::string_view job, std::string_view key) override;

  absl::Status CommitDrift(const DriftRecord& report, const JobRecord& job) override;
  absl::StatusOr<DriftRecord> GetDriftReport(std::string_view name) override;
  absl::StatusOr<std::vector<DriftRecord>> ListDriftReports(std::string_view model, const Page& page) override;
  absl::Status DeleteDriftReport(std::string_view name) override;

  absl::Status CommitModelLoad(const ModelRecord& model, const JobRecord& job) override;
  absl::Status CommitModelUnload(std::string_view name, const JobRecord& job) override;
  absl::StatusOr<std::vector<ModelRecord>> ListModels() override;
  absl::StatusOr<int64_t> BeginModelStart(std::string_view name) override;
  absl::Status EndModelStart(std::string_view name) override;

  absl::StatusOr<std::vector<AuditRecord>> ListAudit(int64_t after, int64_t limit) override;
  int64_t revision() const override { return revision_.load(std::memory_order_relaxed); }
  std::string secret() const override { return secret_; }

 private:
  // Held while the file is open; the kernel drops it when the process ends, however it ends.
  class ProcessLock;

  enum class Write {
    kNothing,  // nothing to change after all: roll back
    kQuietly,  // progress of a job: no audit entry, the same revision
    kAudited,
  };
  // What a change sees and says.
  struct Change {
    Database& database;
    absl::Time now;
    int64_t id;                            // the registry's revision once this change is committed
    std::string action, resource, detail;  // of its audit entry
    Write write = Write::kAudited;
  };

  SqliteRegistry(std::unique_ptr<ProcessLock> lock, std::unique_ptr<Database> database, const Clock& clock,
                 RegistryObserver* observer);

  absl::Status LoadSettings();
  // Runs `body` under the mutex; tells the observer of storage failures.
  template <typename Body>
  std::invoke_result_t<Body, Database&> Locked(std::string_view operation, const Body& body);
  // Runs `body` and writes an audit entry in one transaction: both or neither. `operation` is the audit's action.
  absl::Status Commit(std::string_view operation, std::string_view resource,
                      absl::FunctionRef<absl::Status(Change&)> body);
  void Observe(std::string_view operation, const absl::Status& status);

  const std::unique_ptr<ProcessLock> process_lock_;
  const Clock& clock_;
  RegistryObserver* const observer_;
  absl::Mutex mutex_;
  const std::unique_ptr<Database> database_ ABSL_PT_GUARDED_BY(mutex_);
  std::string secret_;                 // const after Open
  std::atomic<int64_t> revision_ = 0;  // written under mutex_
};

template <typename Body>
std::invoke_result_t<Body, Database&> SqliteRegistry::Locked(std::string_view operation, const Body& body) {
  absl::MutexLock lock(&mutex_);
  auto result = body(*database_);
  if constexpr (std::is_same_v<decltype(result), absl::Status>) {
    Observe(operation, result);
  } else {
    Observe(operation, result.status());
  }
  return result;
}

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_REGISTRY_SQLITE_REGISTRY_H_
