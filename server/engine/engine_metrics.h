// What the engine tells about itself. Declared here so that the engine does not depend on Prometheus;
// server/metrics implements it. Called by the engine thread, a few times per step: cheap, non-blocking.
#ifndef TRIMTAB_SERVER_ENGINE_ENGINE_METRICS_H_
#define TRIMTAB_SERVER_ENGINE_ENGINE_METRICS_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "server/engine/request.h"

namespace trimtab {

struct StepObservation {
  int64_t sequences = 0, prefill_tokens = 0, decode_tokens = 0;  // rows computed
  int64_t steered_sequences = 0, steered_output_tokens = 0, unsteered_output_tokens = 0;
  absl::Duration duration, steering_duration;  // the whole step; the part spent in SteeringTap
  int64_t nonfinite_rows = 0;
};

struct QueueObservation {
  int64_t running = 0, waiting = 0, used_blocks = 0, total_blocks = 0;
};

// One request that ended; times are those a client would see at the server's edge.
struct RequestObservation {
  FinishReason reason = FinishReason::kStop;
  bool steered = false;
  bool score = false;
  RequestUsage usage;
  RequestTiming timing;
  absl::Duration time_to_first_token, total;
};

class EngineMetrics {
 public:
  virtual ~EngineMetrics() = default;
  virtual void OnStep(const StepObservation& step) = 0;
  virtual void OnQueues(const QueueObservation& queues) = 0;
  virtual void OnInterTokenLatency(bool steered, absl::Duration gap) = 0;
  virtual void OnRequestEnd(const RequestObservation& request) = 0;
  virtual void OnPrefixLookup(int64_t queried_tokens, int64_t hit_tokens) = 0;
  virtual void OnPreemption() = 0;
  virtual void OnStall() = 0;
  // Steering bank: totals since start.
  virtual void OnBank(int64_t hits, int64_t misses, int64_t evictions, int64_t uploaded_bytes, int64_t bytes) = 0;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_ENGINE_METRICS_H_
