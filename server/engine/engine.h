// One model on one device: a thread that owns the scheduler, the KV cache, the steering bank and the random numbers,
// and runs drain inbox -> plan -> execute -> commit for ever. No locks around serving state: the inbox is the only
// door.
#ifndef TRIMTAB_SERVER_ENGINE_ENGINE_H_
#define TRIMTAB_SERVER_ENGINE_ENGINE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "models/loaded_model.h"
#include "server/base/clock.h"
#include "server/engine/request.h"
#include "steering/drift/scorer.h"

namespace trimtab {

class EngineMetrics;
class EngineThread;

struct EngineConfig {
  int64_t kv_cache_bytes = int64_t{512} << 20;
  int64_t block_size = 16;             // tokens per KV block
  int64_t max_running_requests = 64;   // sequences in a step
  int64_t max_waiting_requests = 256;  // beyond it Submit answers QUEUE_FULL
  int64_t max_step_tokens = 512;       // token budget of a step: bounds the wait that a long prompt causes
  // A step in which interactive answers go on takes in only so much of further prompts that it should stay within this
  // (StepCost learns how much that is), and one in which they begin only so much of a long prompt; infinite:
  // max_step_tokens alone decides.
  absl::Duration max_step_time = absl::Milliseconds(50);
  // Of one tenant; 0: no bound. Beyond the first Submit answers QUOTA_EXCEEDED, beyond the second requests wait.
  int64_t max_waiting_per_tenant = 0, max_running_per_tenant = 0;
  // Different vectors that the requests of a step may use; strengths take none. A slot takes memory (layers * hidden
  // size * 4 bytes) from its first use.
  int64_t steering_slots = 256;
  int64_t max_context = 0;  // 0: the model's context length; the cache's capacity bounds it too
  absl::Duration stall_timeout = absl::Seconds(30);  // a consumer that takes nothing for so long is cancelled
  bool prefix_caching = true;
  // Intra-op threads of the engine's steps; 0: ATen's default, all cores. ATen has one such number per process: setting
  // it here also sets it for threads that use ATen for the first time later; a job worker that wants another sets its
  // own.
  int num_threads = 0;
};

// A snapshot for GetModel and tests.
struct EngineStats {
  int64_t running = 0, waiting = 0, free_blocks = 0, total_blocks = 0;
  int64_t preemptions = 0, prefix_cache_hit_tokens = 0, prefix_cache_query_tokens = 0;
  bool healthy = true;
};

// All methods are thread-safe and none blocks on a step, except Score and Stop.
class Engine final : public Scorer {
 public:
  // Allocates the cache and starts the thread. RESOURCE_EXHAUSTED when the memory is not there. `metrics` may be null.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(std::shared_ptr<const LoadedModel> model,
                                                        const EngineConfig& config, const Clock& clock,
                                                        EngineMetrics* metrics);
  ~Engine() override;

  // Takes the request, or refuses it without calling its sink: RESOURCE_EXHAUSTED (QUEUE_FULL, and QUOTA_EXCEEDED when
  // too many of its tenant wait, both with retry info; KV_CACHE_TOO_SMALL when it can never fit), INVALID_ARGUMENT
  // (PROMPT_TOO_LONG: tokens, limit; FIELD_INVALID for token ids outside the vocabulary), UNAVAILABLE (SHUTTING_DOWN,
  // ENGINE_UNHEALTHY), DEADLINE_EXCEEDED when it is past already.
  absl::Status Submit(std::unique_ptr<Request> request);
  // Ends a request within one step with `reason` (kCancelled, kDeadline or kStopSequence). Unknown ids are ignored.
  void Abort(const std::string& id, FinishReason reason);
  // A consumer that was not Ready is again. With any id: the engine looks at the clock again.
  void Resume(const std::string& id);

  absl::StatusOr<std::vector<ScoreOutcome>> Score(std::vector<ScoreItem> items) override;

  // Refuses new requests; returns when those in flight have ended, or aborts them at `deadline`. Both kinds are told
  // `why` (UNAVAILABLE). Idempotent: the first reason stays.
  void Drain(absl::Time deadline, const absl::Status& why = ShuttingDown());
  // SHUTTING_DOWN.
  static absl::Status ShuttingDown();
  // True when nothing interactive is running or waiting: background work may go on at full speed. Cheap; for
  // DeviceGate.
  bool idle() const;
  EngineStats stats() const;
  const LoadedModel& model() const { return *model_; }

 private:
  Engine(std::shared_ptr<const LoadedModel> model, std::unique_ptr<EngineThread> thread);

  std::shared_ptr<const LoadedModel> model_;
  std::unique_ptr<EngineThread> thread_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_ENGINE_H_
