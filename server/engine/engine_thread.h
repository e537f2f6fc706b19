// The thread behind an Engine: its inbox, and the loop drain -> plan -> execute -> commit. Made by Engine::Create.
#ifndef TRIMTAB_SERVER_ENGINE_ENGINE_THREAD_H_
#define TRIMTAB_SERVER_ENGINE_ENGINE_THREAD_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "models/attention/kv_cache.h"
#include "models/attention/paged_attention.h"
#include "models/loaded_model.h"
#include "server/base/clock.h"
#include "server/engine/engine.h"
#include "server/engine/engine_metrics.h"
#include "server/engine/model_runner.h"
#include "server/engine/request.h"
#include "server/engine/request_check.h"
#include "server/engine/scheduler.h"
#include "server/engine/score_call.h"
#include "steering/runtime/steering_bank.h"

namespace trimtab {

// The bank as the scheduler sees it.
class BankSlots final : public SteeringSlots {
 public:
  explicit BankSlots(SteeringBank& bank) : bank_(bank) {}
  std::optional<int32_t> Acquire(const std::shared_ptr<const SteeringVector>& vector) override {
    return bank_.Acquire(vector);
  }
  void Release(int32_t slot) override { bank_.Release(slot); }

 private:
  SteeringBank& bank_;
};

// Owns all serving state; only the inbox is shared with other threads, under one lock.
class EngineThread final : private SchedulerEvents {
 public:
  // Throws std::bad_alloc or c10::Error when the memory is not there.
  EngineThread(const LoadedModel& model, const EngineConfig& config, int64_t num_blocks, const Clock& clock,
               EngineMetrics* metrics);

  // Ends everything that is in flight.
  ~EngineThread() override;

  // As Engine's methods; any thread.
  absl::Status Submit(std::unique_ptr<Request> request) ABSL_LOCKS_EXCLUDED(mutex_);
  void Abort(const std::string& id, FinishReason reason) ABSL_LOCKS_EXCLUDED(mutex_);
  void Drain(absl::Time deadline, const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  // The engine thread looks at the clock, and at who is Ready, again.
  void Wake() ABSL_LOCKS_EXCLUDED(mutex_);

  bool idle() const { return interactive_.load(std::memory_order_relaxed) == 0; }
  EngineStats stats() const ABSL_LOCKS_EXCLUDED(mutex_);

  std::string NewScoreId() { return absl::StrCat("score/", next_score_.fetch_add(1, std::memory_order_relaxed)); }
  // Bounds what all Score calls together have in flight.
  ScoreWindow& score_window() { return score_window_; }

 private:
  struct AbortMessage {
    std::string id;
    FinishReason reason;
  };
  struct AbortAllMessage {
    absl::Status why;
  };
  using Message = std::variant<std::unique_ptr<Request>, AbortMessage, AbortAllMessage>;
  // A request between Submit and its end.
  struct Live {
    bool counted = false;  // in waiting_requests_ and waiting_of_tenants_
  };

  SchedulerConfig MakeSchedulerConfig(int64_t num_blocks) const;

  bool AllEnded() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return inbox_.empty() && settled_ && live_.empty(); }
  bool HasNews() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !inbox_.empty() || woken_ || stopping_; }

  void OnScheduled(const Request& request) override;
  void OnEnded(const Request& request) override;
  void StopCounting(const Request& request, Live& live) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void Loop();

  // Applies what came in; waits for something unless `busy`. False when the engine is to stop.
  bool TakeMessages(bool busy);

  // One step; false when there was nothing to do.
  bool Step();

  static StepObservation Observe(const StepPlan& plan);

  // Shows the state to other threads and to the metrics.
  void Publish();

  const EngineConfig config_;
  const Clock& clock_;
  EngineMetrics* const metrics_;
  const ModelSpec& spec_;
  const RequestLimits limits_;

  // The engine thread's.
  KvCache cache_;
  PagedAttention attention_;
  SteeringBank bank_;
  BankSlots slots_;
  ModelRunner runner_;
  Scheduler scheduler_;
  int failed_steps_ = 0;  // in a row

  std::atomic<int64_t> interactive_{0};  // interactive requests between Submit and their end
  std::atomic<int64_t> next_score_{0};
  ScoreWindow score_window_{config_.max_running_requests};

  mutable absl::Mutex mutex_;
  std::vector<Message> inbox_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<std::string, Live> live_ ABSL_GUARDED_BY(mutex_);
  // Requests that were never scheduled so far, without the server's own.
  int64_t waiting_requests_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unordered_map<std::string, int64_t> waiting_of_tenants_ ABSL_GUARDED_BY(mutex_);  // those with any
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool settled_ ABSL_GUARDED_BY(mutex_) = true;    // the scheduler was empty when it last showed its state
  absl::Status draining_ ABSL_GUARDED_BY(mutex_);  // why; OK while requests are taken
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  EngineStats stats_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;  // last: it uses everything above
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_ENGINE_THREAD_H_
