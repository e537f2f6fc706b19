// Decides what each step computes and what becomes of its results: queues, cache blocks, bank slots, preemption,
// deadlines, pauses. No torch, no clock of its own, no lock. Owned by Engine, engine thread only.
#ifndef TRIMTAB_SERVER_ENGINE_SCHEDULER_H_
#define TRIMTAB_SERVER_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/engine/engine_metrics.h"
#include "server/engine/fair_order.h"
#include "server/engine/kv_block_manager.h"
#include "server/engine/request.h"
#include "server/engine/sequence.h"
#include "server/engine/step.h"
#include "server/engine/step_cost.h"

namespace trimtab {

struct SchedulerConfig {
  int64_t num_blocks = 0;
  int64_t block_size = 16;
  int64_t max_running_requests = 64;
  int64_t max_step_tokens = 512;
  // A step in which interactive answers go on takes in only so much prompt that it should stay within this, and one in
  // which they begin only so much of a long prompt; infinite: as much as max_step_tokens allows.
  absl::Duration max_step_time = absl::InfiniteDuration();
  int64_t max_running_per_tenant = 0;  // 0: no bound
  int64_t max_context = 0;             // most tokens of a sequence; at most num_blocks * block_size
  absl::Duration stall_timeout = absl::Seconds(30);
  bool prefix_caching = true;
};

// The steering bank as the scheduler sees it.
class SteeringSlots {
 public:
  virtual ~SteeringSlots() = default;
  // A slot that holds `vector`, with one reference; nullopt when all are taken.
  virtual std::optional<int32_t> Acquire(const std::shared_ptr<const SteeringVector>& vector) = 0;
  virtual void Release(int32_t slot) = 0;
};

// Told of a request's first step and of its end (before its sink is).
class SchedulerEvents {
 public:
  virtual ~SchedulerEvents() = default;
  virtual void OnScheduled(const Request& request) = 0;
  virtual void OnEnded(const Request& request) = 0;
};

// Policy.
//
// A step: decoding goes first, then prefill, new requests included, within the step's token budget. While interactive
// answers go on, the budget is also what is known to fit into max_step_time, so that a long prompt comes in pieces and
// stalls nobody.
//
// The order of prefill (PrefillTurn) is priority, then fairness among tenants (TenantOrder), then the shortest prompt
// first with aging (PromptPlace): each step chooses anew, so ordinary prompts pass a long one that is being computed.
// Nobody starves: tenants get equal shares, a prompt is passed by a multiple of its own length at most, and a class of
// lower priority earns a small part of what higher ones are given (PriorityShares), for which its first request is
// promoted: served before all others. A tenant has at most max_running_per_tenant requests running; its other ones wait
// and are passed.
//
// Memory: a request is admitted when its whole prompt fits, so only decoding can run out; then the newest of the lowest
// rank is preempted: it gives everything back and is computed again later, which changes nothing of its output.
// Nobody is preempted for somebody of lower rank, so the first always gets on. A request that could share a prefix
// which this very step computes waits for it. A paused sequence (its sink is not Ready) keeps its blocks until they are
// needed.
class Scheduler {
 public:
  // `slots` must outlive the scheduler and have at least kMaxSelections slots. `metrics` and `events` may be null.
  Scheduler(const SchedulerConfig& config, SteeringSlots& slots, EngineMetrics* metrics, SchedulerEvents* events);

  // The request must fit: 1 <= prompt_length, target positions <= max_context (Engine::Submit checks it).
  void Submit(std::unique_ptr<Request> request, absl::Time now);
  // Ends the request; not planned any more. Unknown ids are ignored.
  void Abort(const std::string& id, FinishReason reason, const absl::Status& status, absl::Time now);
  void AbortAll(FinishReason reason, const absl::Status& status, absl::Time now);

  // Ends what is past its deadline or stalled, then chooses the next step. Empty: nothing can be done until an event
  // from outside or NextEvent(). Valid until the next call of Plan.
  const StepPlan& Plan(absl::Time now);
  // Takes the results, and the tokens out of them, of the plan that Plan returned last; nothing was called in between.
  // Calls sinks.
  void Commit(const StepPlan& plan, StepResult&& result, absl::Time now);

  // When Plan has something to do without an event from outside: the next deadline or stall time-out.
  absl::Time NextEvent() const;

  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  bool empty() const { return sequences_.empty(); }
  int64_t tenants() const { return tenants_.tenants(); }
  const KvBlockManager& blocks() const { return blocks_; }
  struct Counters {
    int64_t preemptions = 0, promotions = 0, prefix_query_tokens = 0, prefix_hit_tokens = 0;
  };
  const Counters& counters() const { return counters_; }

  // INTERNAL says which invariant does not hold (references equal the running sequences' blocks, waiting ones hold
  // nothing). For tests.
  absl::Status CheckInvariants() const;

 private:
  using Queue = std::set<Sequence*, CameBefore>;
  // A step in the making.
  struct Draft {
    std::vector<StepItem>& items;
    int64_t budget = 0;
    int64_t decode_rows = 0, prefill_rows = 0;
    bool answers = false;           // an interactive answer goes on or begins in this step
    bool steering_blocked = false;  // somebody waits for a bank slot: later steered requests must not pass
    struct KeyHash {
      size_t operator()(const Digest128& key) const { return static_cast<size_t>(key[0]); }
    };
    std::unordered_set<Digest128, KeyHash> keys;  // prefixes that this step's items are computing
  };

  void EndExpired(absl::Time now);
  void UpdatePauses(absl::Time now);
  // Lets classes that earned it have their first request served before all others.
  void PromoteStarved();
  void Promote(Sequence& sequence);
  void PlanDecode(Draft& draft);
  // How many of a sequence's remaining rows this step may compute. When answers begin in it, a prompt that does not fit
  // into max_step_time gets only what is left of that time; 0: nothing.
  int64_t RowsFor(int64_t remaining, const Draft& draft) const;
  void PlanPrefill(Draft& draft, absl::Time now);
  // False: later requests must not be tried either.
  bool TryAdmit(Sequence& sequence, Draft& draft, absl::Time now);
  bool TenantIsFull(const Sequence& sequence) const;
  // So many tokens were looked for in the cache, and found.
  void CountHits(Sequence& sequence, int64_t queried, int64_t hit);
  bool AcquireSlots(Sequence& sequence, Draft& draft);
  void ReleaseSlots(Sequence& sequence);
  // Shared prefix, then private blocks for all known tokens; false when memory is short.
  bool AcquireBlocks(Sequence& sequence, Draft& draft);
  // Takes over what others have computed of its prompt since it was admitted.
  void AdoptCached(Sequence& sequence);
  // How many leading blocks could be shared, at least one position being left to compute.
  int64_t Shareable(const Sequence& sequence) const;
  void AddItem(Sequence& sequence, Draft& draft);
  // Rows that a step computes for a sequence, or does not after all.
  static void Charge(const Sequence& sequence, int64_t rows);
  // Who may be preempted for a sequence: whoever ranks below it (it runs and must get on), or, for a new one, only a
  // lower priority and paused sequences of its own.
  enum class Yields { kLowerRank, kLowerPriority, kLowerPrioritySteered };
  static bool MayYield(const Sequence& other, const Sequence& sequence, Yields yields);
  // The running sequence to preempt first; null when none may be.
  Sequence* FindVictim(const Sequence& sequence, Yields yields) const;
  void Preempt(Sequence& victim, Draft& draft);
  void GiveBack(Sequence& sequence);
  void ComputeKeys(Sequence& sequence);
  void PublishBlocks(Sequence& sequence);
  // row_dose: of the item's rows; empty if nothing was steered.
  void CountDose(Sequence& sequence, const StepItem& item, absl::Span<const float> row_dose);
  void CommitToken(Sequence& sequence, OutputToken token, absl::Time now);
  // Destroys the sequence.
  void End(Sequence& sequence, FinishReason reason, absl::Status status, absl::Time now);

  const SchedulerConfig config_;
  SteeringSlots& slots_;
  EngineMetrics* const metrics_;
  SchedulerEvents* const events_;
  KvBlockManager blocks_;
  std::unordered_map<std::string, std::unique_ptr<Sequence>> sequences_;  // by request id
  Queue running_, waiting_;                                               // partition of sequences_
  int64_t next_ticket_ = 0;
  absl::Time next_deadline_ = absl::InfiniteFuture();  // not after the first deadline of all
  TenantOrder tenants_;
  PriorityShares shares_;
  StepCost cost_;
  StepPlan plan_;                   // that Plan returned last
  std::vector<Sequence*> planned_;  // parallel to its items
  absl::Time planned_at_;
  int64_t planned_decode_rows_ = 0;
  std::vector<PrefillTurn> turns_;  // scratch
  Counters counters_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_SCHEDULER_H_
