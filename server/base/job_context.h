// What a long computation needs from whoever runs it: permission to go on, a place to report to, durable partial
// results. Declared here so that steering does not depend on the job manager. The worker thread of one job.
#ifndef TRIMTAB_SERVER_BASE_JOB_CONTEXT_H_
#define TRIMTAB_SERVER_BASE_JOB_CONTEXT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trimtab {

// Phases of a job in the order they may come; a kind of job uses some of them.
enum class JobPhase {
  kQueued = 1,
  kAttributing = 2,
  kMasking = 3,
  kDecomposing = 4,
  kValidating = 5,
  kPersisting = 6,
  kDrift = 7,
  kReading = 8,    // a model's files
  kStarting = 9,   // its engine
  kDraining = 10,  // its calls
  kFreeing = 11,   // its memory
};

struct JobProgress {
  JobPhase phase = JobPhase::kQueued;
  int64_t completed = 0;  // items of the whole job (pairs, questions)
  int64_t total = 0;
  double fraction = 0;  // of the whole job's estimated work, [0, 1]; never falls
  // Items that failed and were left out, with a reason; at most 20 are kept.
  std::map<std::string, std::string> partial_failures;
};

class JobContext {
 public:
  virtual ~JobContext() = default;
  // Called between micro-batches (at least twice a second of work). CANCELLED when the job was cancelled; UNAVAILABLE
  // when the server is shutting down: return it at once, saved partial results are kept and the job resumes at the next
  // start.
  virtual absl::Status Checkpoint() = 0;
  virtual void Report(const JobProgress& progress) = 0;
  // Durable before it returns OK. Keys are chosen by the job; a second Save of a key replaces it.
  virtual absl::Status SavePartial(std::string_view key, std::string_view bytes) = 0;
  // What an earlier run of this job saved, also before a crash; nullopt without it.
  virtual absl::StatusOr<std::optional<std::string>> LoadPartial(std::string_view key) = 0;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_BASE_JOB_CONTEXT_H_
