// Records that the registry's and the job manager's tests share. Any thread.
#ifndef TRIMTAB_TESTS_SERVER_REGISTRY_RECORDS_H_
#define TRIMTAB_TESTS_SERVER_REGISTRY_RECORDS_H_

#include <filesystem>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "server/registry/registry.h"

namespace trimtab {

inline constexpr std::string_view kTestModel = "models/small";
inline constexpr int kCrashTestAttributions = 20;  // that crash_child commits with each fit

// `folder`/name without the remains of an earlier run.
inline std::string NewRegistryPath(const std::string& folder, std::string_view name) {
  const std::string path = folder + "/" + std::string(name);
  for (const char* suffix : {"", "-wal", "-shm", ".lock"}) std::filesystem::remove(path + suffix);
  return path;
}

inline std::string TestObjectiveName(std::string_view id) {
  return absl::StrCat(std::string(kTestModel), "/objectives/", std::string(id));
}

inline ObjectiveRecord MakeObjective(std::string_view id, std::string_view request_id = "",
                                     std::string_view request_hash = "") {
  ObjectiveRecord objective;
  objective.name = TestObjectiveName(id);
  objective.request_id = std::string(request_id);
  objective.request_hash = std::string(request_hash);
  objective.display_name = "Calm";
  objective.description = "answers calmly";
  objective.method = "grains";
  objective.method_config = std::string("config\0bytes", 12);
  objective.pairs = std::string("pairs\0bytes", 11);
  objective.pairs_hash = "abc";
  objective.pair_count = 50;
  objective.held_out_count = 30;
  objective.max_strength = 0.5f;
  objective.model_fingerprint = "fingerprint";
  return objective;
}

inline JobRecord MakeFitJob(std::string_view id, std::string_view objective) {
  JobRecord job;
  job.name = absl::StrCat("operations/", std::string(id));
  job.kind = "fit";
  job.target = TestObjectiveName(objective);
  job.request = "request";
  job.metadata = "queued";
  return job;
}

inline JobRecord MakeDriftJob(std::string_view id, std::string_view request_id = "",
                              std::string_view request_hash = "") {
  JobRecord job;
  job.name = absl::StrCat("operations/", std::string(id));
  job.kind = "drift";
  job.target = absl::StrCat(std::string(kTestModel), "/driftReports/", std::string(id));
  job.request = "request";
  job.request_id = std::string(request_id);
  job.request_hash = std::string(request_hash);
  return job;
}

inline RevisionRecord MakeRevision(std::string_view objective, std::string_view digest) {
  RevisionRecord revision;
  revision.objective = TestObjectiveName(objective);
  revision.digest = std::string(digest);
  revision.model_fingerprint = "fingerprint";
  revision.method = "grains";
  revision.pairs_hash = "abc";
  revision.vector = std::string("vector\0bytes", 12);
  revision.summary = "summary";
  return revision;
}

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_REGISTRY_RECORDS_H_
