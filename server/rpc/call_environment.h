// What the calls of GenerationService share. Plain pointers: all of it outlives the gRPC server.
#ifndef TRIMTAB_SERVER_RPC_CALL_ENVIRONMENT_H_
#define TRIMTAB_SERVER_RPC_CALL_ENVIRONMENT_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/repeated_field.h"
#include "server/base/clock.h"
#include "server/rpc/executor.h"
#include "server/rpc/model_directory.h"
#include "steering/steering_plan.h"
#include "steering/vector_store.h"
#include "trimtab/v1/common.pb.h"

namespace trimtab {

// What calls tell about themselves beside what the engine tells. Any thread: cheap, non-blocking.
class CallMetrics {
 public:
  virtual ~CallMetrics() = default;
  // A call was refused before the engine ran it.
  virtual void OnRejected(const absl::Status& error) = 0;
  // Tokens that joined (or left: negative) the queues between engine and streams.
  virtual void AddQueuedTokens(int64_t tokens) = 0;
  // A call was steered by an objective (full name) at so many positions.
  virtual void OnSteered(const std::string& objective, int64_t tokens) = 0;
};

struct CallEnvironment {
  const ModelDirectory* models = nullptr;
  const VectorStore* vectors = nullptr;
  const Clock* clock = nullptr;
  Executor* prep = nullptr;        // before the engine: parse, resolve, template, tokens
  Executor* egress = nullptr;      // after it: text, stop sequences, writes
  CallMetrics* metrics = nullptr;  // may be null
  std::string id_prefix;           // makes ids of this process unlike those of others
  std::atomic<uint64_t> last_id = 0;

  // Unique in this process: the engine's name for a request.
  std::string NewId() { return absl::StrCat(id_prefix, "-", ++last_id); }
  void TellRejected(const absl::Status& error);
  void TellSteered(const SteeringPlan& plan, const std::vector<AppliedDose>& doses);
};

// What was applied, for responses: `doses` is parallel to the plan's entries.
void AddApplied(const SteeringPlan& plan, const std::vector<AppliedDose>& doses,
                google::protobuf::RepeatedPtrField<v1::AppliedSteering>* applied);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_CALL_ENVIRONMENT_H_
