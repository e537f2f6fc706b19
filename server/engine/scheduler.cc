#include "server/engine/scheduler.h"

#include <algorithm>
#include <functional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"

namespace trimtab {
namespace {

bool IsDecode(const Sequence& sequence) { return sequence.remaining() == 1 && !sequence.request->score; }

// The greatest is preempted first.
std::tuple<Priority, bool, bool, int64_t> VictimRank(const Sequence& sequence) {
  return {sequence.rank, sequence.paused(), !sequence.promoted, sequence.ticket};
}

}  // namespace

Scheduler::Scheduler(const SchedulerConfig& config, SteeringSlots& slots, EngineMetrics* metrics,
                     SchedulerEvents* events)
    : config_(config),
      slots_(slots),
      metrics_(metrics),
      events_(events),
      blocks_(config.num_blocks, config.block_size) {}

void Scheduler::Submit(std::unique_ptr<Request> request, absl::Time now) {
  auto owned = std::make_unique<Sequence>();
  Sequence& sequence = *owned;
  sequence.ticket = next_ticket_++;
  sequence.tokens = request->tokens;
  sequence.arrival = request->arrival == absl::Time() ? now : request->arrival;
  sequence.rank = request->priority;
  sequence.tenant = tenants_.Enter(request->tenant, request->priority);
  sequence.came = sequence.tenant->account(request->priority).prefilled;
  next_deadline_ = std::min(next_deadline_, request->deadline);
  sequence.request = std::move(request);
  ComputeKeys(sequence);
  sequence.expected_cached =
      blocks_.CountCached(absl::MakeConstSpan(sequence.keys).first(Shareable(sequence))) * config_.block_size;
  const std::string& id = sequence.request->id;
  waiting_.insert(&sequence);
  sequences_.emplace(id, std::move(owned));
}

void Scheduler::Abort(const std::string& id, FinishReason reason, const absl::Status& status, absl::Time now) {
  const auto it = sequences_.find(id);
  if (it != sequences_.end()) End(*it->second, reason, status, now);
}

void Scheduler::AbortAll(FinishReason reason, const absl::Status& status, absl::Time now) {
  while (!sequences_.empty()) End(*sequences_.begin()->second, reason, status, now);
}

const StepPlan& Scheduler::Plan(absl::Time now) {
  EndExpired(now);
  UpdatePauses(now);
  PromoteStarved();
  plan_.items.clear();
  planned_.clear();
  Draft draft{.items = plan_.items, .budget = config_.max_step_tokens};
  PlanDecode(draft);
  if (draft.answers && config_.max_step_time < absl::InfiniteDuration()) {
    draft.budget = std::min(draft.budget, cost_.PrefillRows(draft.decode_rows, config_.max_step_time));
  }
  PlanPrefill(draft, now);
  planned_at_ = now;
  planned_decode_rows_ = 0;
  for (const StepItem& item : draft.items) {
    if (IsDecode(*item.sequence)) planned_decode_rows_ += item.length;
    shares_.Count(item.sequence->rank, item.length);
  }
  return plan_;
}

void Scheduler::EndExpired(absl::Time now) {
  if (now < next_deadline_) return;
  std::vector<Sequence*> expired;
  next_deadline_ = absl::InfiniteFuture();
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->request->deadline <= now) {
      expired.push_back(sequence.get());
    } else {
      next_deadline_ = std::min(next_deadline_, sequence->request->deadline);
    }
  }
  std::sort(expired.begin(), expired.end(), CameBefore());
  for (Sequence* sequence : expired) {
    End(*sequence, FinishReason::kDeadline,
        ReasonError(absl::StatusCode::kDeadlineExceeded, kDeadlineExceeded, "the request's deadline passed"), now);
  }
}

void Scheduler::UpdatePauses(absl::Time now) {
  std::vector<Sequence*> stalled;
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->request->sink->Ready()) {
      sequence->paused_since = absl::InfiniteFuture();
    } else if (!sequence->paused()) {
      sequence->paused_since = now;
    }
    if (sequence->paused() && now - sequence->paused_since >= config_.stall_timeout) stalled.push_back(sequence.get());
  }
  std::sort(stalled.begin(), stalled.end(), CameBefore());
  for (Sequence* sequence : stalled) {
    if (metrics_ != nullptr) metrics_->OnStall();
    End(*sequence, FinishReason::kCancelled,
        ReasonError(absl::StatusCode::kCancelled, kCancelled,
                    absl::StrCat("the reader took nothing for ", absl::FormatDuration(config_.stall_timeout))),
        now);
  }
}

void Scheduler::PromoteStarved() {
  for (const Priority priority : {Priority::kBatch, Priority::kBackground}) {
    // The first of the class that wants to be computed and is not held up by its own tenant.
    std::optional<PrefillTurn> first;
    for (const Queue* queue : {&running_, &waiting_}) {
      for (auto it = queue->lower_bound(priority); it != queue->end() && (*it)->rank == priority; ++it) {
        Sequence& sequence = **it;
        if (sequence.paused() || (sequence.running && IsDecode(sequence)) || TenantIsFull(sequence)) continue;
        if (const PrefillTurn turn(sequence); !first || turn < *first) first = turn;
      }
    }
    if (!first) {
      shares_.Forget(priority);
    } else if (shares_.Spend(priority, first->sequence->remaining())) {
      Promote(*first->sequence);
    }
  }
}

void Scheduler::Promote(Sequence& sequence) {
  Queue& queue = sequence.running ? running_ : waiting_;
  queue.erase(&sequence);
  sequence.rank = Priority::kInteractive;
  sequence.promoted = true;
  queue.insert(&sequence);
  ++counters_.promotions;
}

void Scheduler::PlanDecode(Draft& draft) {
  for (auto it = running_.begin(); it != running_.end() && draft.budget > 0; ++it) {
    Sequence& sequence = **it;
    if (!IsDecode(sequence) || sequence.paused()) continue;
    const int64_t need = blocks_.BlocksFor(sequence.target()) - static_cast<int64_t>(sequence.blocks.size());
    while (need > blocks_.available()) {
      // The iterator stays valid: a victim is never `sequence` itself.
      Sequence* victim = FindVictim(sequence, Yields::kLowerRank);
      if (victim == nullptr) break;
      Preempt(*victim, draft);
    }
    if (need > 0 && !blocks_.Allocate(need, sequence.blocks)) continue;
    AddItem(sequence, draft);
  }
}

int64_t Scheduler::RowsFor(int64_t remaining, const Draft& draft) const {
  const int64_t rows = std::min(draft.budget, remaining);
  if (!draft.answers || config_.max_step_time == absl::InfiniteDuration()) return rows;
  const int64_t bound = cost_.PrefillRows(draft.decode_rows, config_.max_step_time);
  return remaining <= bound ? rows : std::clamp<int64_t>(bound - draft.prefill_rows, 0, rows);
}

void Scheduler::PlanPrefill(Draft& draft, absl::Time now) {
  turns_.clear();
  for (Sequence* sequence : running_) {
    if (!IsDecode(*sequence) && !sequence->paused()) turns_.emplace_back(*sequence);
  }
  for (Sequence* sequence : waiting_) {
    if (!sequence->paused()) turns_.emplace_back(*sequence);
  }
  std::make_heap(turns_.begin(), turns_.end(), std::greater<>());
  while (!turns_.empty() && draft.budget > 0) {
    std::pop_heap(turns_.begin(), turns_.end(), std::greater<>());
    Sequence& sequence = *turns_.back().sequence;
    if (const PrefillTurn turn(sequence); turn.served > turns_.back().served) {
      // Its tenant was given rows meanwhile.
      turns_.back() = turn;
      std::push_heap(turns_.begin(), turns_.end(), std::greater<>());
      continue;
    }
    turns_.pop_back();
    if (sequence.running) AdoptCached(sequence);
    if (RowsFor(sequence.remaining() - (sequence.running ? 0 : sequence.expected_cached), draft) == 0) continue;
    if (sequence.running) {
      AddItem(sequence, draft);
    } else if (!TryAdmit(sequence, draft, now)) {
      const auto waits = [](const PrefillTurn& turn) { return !turn.sequence->running; };
      turns_.erase(std::remove_if(turns_.begin(), turns_.end(), waits), turns_.end());
      std::make_heap(turns_.begin(), turns_.end(), std::greater<>());
    }
  }
}

bool Scheduler::TenantIsFull(const Sequence& sequence) const {
  return config_.max_running_per_tenant > 0 && !sequence.running && !sequence.request->internal &&
         sequence.tenant->running >= config_.max_running_per_tenant;
}

bool Scheduler::TryAdmit(Sequence& sequence, Draft& draft, absl::Time now) {
  if (TenantIsFull(sequence) || (sequence.steered() && draft.steering_blocked)) return true;
  ComputeKeys(sequence);
  if (const int64_t shareable = Shareable(sequence); !draft.keys.empty() && shareable > 0) {
    const int64_t held = blocks_.CountCached(absl::MakeConstSpan(sequence.keys).first(shareable));
    sequence.expected_cached = held * config_.block_size;
    if (held < shareable && draft.keys.count(sequence.keys[held]) > 0) return true;
  }
  if (running() >= config_.max_running_requests) {
    Sequence* victim = FindVictim(sequence, Yields::kLowerPriority);
    if (victim == nullptr) return false;
    Preempt(*victim, draft);
  }
  if (!AcquireSlots(sequence, draft)) {
    draft.steering_blocked = true;
    return true;
  }
  if (!AcquireBlocks(sequence, draft)) {
    ReleaseSlots(sequence);
    return false;
  }
  waiting_.erase(&sequence);
  running_.insert(&sequence);
  sequence.running = true;
  sequence.tenant->running += sequence.request->internal ? 0 : 1;
  if (sequence.first_scheduled == absl::InfinitePast()) {
    sequence.first_scheduled = now;
    CountHits(sequence, sequence.target(), sequence.computed);
    if (events_ != nullptr) events_->OnScheduled(*sequence.request);
  }
  AddItem(sequence, draft);
  return true;
}

void Scheduler::CountHits(Sequence& sequence, int64_t queried, int64_t hit) {
  sequence.cached_prompt_tokens += hit;
  if (!config_.prefix_caching) return;
  counters_.prefix_query_tokens += queried;
  counters_.prefix_hit_tokens += hit;
  if (metrics_ != nullptr) metrics_->OnPrefixLookup(queried, hit);
}

bool Scheduler::AcquireSlots(Sequence& sequence, Draft& draft) {
  const std::vector<PlannedSteering>& entries = sequence.request->plan.entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].strength == 0) continue;
    std::optional<int32_t> slot;
    while (!(slot = slots_.Acquire(entries[i].vector))) {
      Sequence* victim = FindVictim(sequence, Yields::kLowerPrioritySteered);
      if (victim == nullptr) break;
      Preempt(*victim, draft);
    }
    if (!slot) {
      ReleaseSlots(sequence);
      return false;
    }
    sequence.slots[i] = *slot;
  }
  return true;
}

void Scheduler::ReleaseSlots(Sequence& sequence) {
  for (int32_t& slot : sequence.slots) {
    if (slot >= 0) slots_.Release(slot);
    slot = -1;
  }
}

bool Scheduler::AcquireBlocks(Sequence& sequence, Draft& draft) {
  sequence.blocks = blocks_.AcquireCached(absl::MakeConstSpan(sequence.keys).first(Shareable(sequence)));
  const int64_t shared = static_cast<int64_t>(sequence.blocks.size());
  const int64_t need = blocks_.BlocksFor(sequence.target()) - shared;
  // Some room for those that run already, else the next token of one of them would throw this one out again.
  const int64_t reserve = std::min(running(), blocks_.num_blocks() / 16);
  int64_t reachable = blocks_.available();
  for (const Sequence* other : running_) {
    if (MayYield(*other, sequence, Yields::kLowerPriority)) reachable += static_cast<int64_t>(other->blocks.size());
  }
  bool fits = need + reserve <= reachable;
  while (fits && need + reserve > blocks_.available()) {
    Sequence* victim = FindVictim(sequence, Yields::kLowerPriority);
    fits = victim != nullptr;
    if (fits) Preempt(*victim, draft);
  }
  if (!fits || !blocks_.Allocate(need, sequence.blocks)) {
    blocks_.Release(sequence.blocks);
    sequence.blocks.clear();
    return false;
  }
  sequence.computed = shared * config_.block_size;
  sequence.published = shared;
  return true;
}

void Scheduler::AdoptCached(Sequence& sequence) {
  const int64_t first = sequence.published, shareable = Shareable(sequence);
  if (first >= shareable) return;
  const std::vector<int32_t> cached =
      blocks_.AcquireCached(absl::MakeConstSpan(sequence.keys).subspan(first, shareable - first));
  if (cached.empty()) return;
  const int64_t count = static_cast<int64_t>(cached.size());
  blocks_.Release(absl::MakeConstSpan(sequence.blocks).subspan(first, count));
  std::copy(cached.begin(), cached.end(), sequence.blocks.begin() + first);
  sequence.published = first + count;
  const int64_t known = std::max(sequence.computed, sequence.dosed);
  sequence.computed = sequence.published * config_.block_size;
  CountHits(sequence, 0, std::max<int64_t>(0, sequence.computed - known));
}

int64_t Scheduler::Shareable(const Sequence& sequence) const {
  return config_.prefix_caching ? sequence.first_logits() / config_.block_size : 0;
}

void Scheduler::Charge(const Sequence& sequence, int64_t rows) {
  Tenant::Account& account = sequence.tenant->account(sequence.request->priority);
  account.served += rows;
  if (!IsDecode(sequence)) account.prefilled += rows;
}

void Scheduler::AddItem(Sequence& sequence, Draft& draft) {
  // What was expected in the cache may be there no more.
  const int64_t length = std::max<int64_t>(1, RowsFor(sequence.remaining(), draft));
  draft.budget -= length;
  Charge(sequence, length);
  (IsDecode(sequence) ? draft.decode_rows : draft.prefill_rows) += length;
  const Request& request = *sequence.request;
  if (length == sequence.remaining() && request.priority == Priority::kInteractive && !request.score) {
    draft.answers = true;
  }
  draft.items.push_back({&sequence, sequence.computed, length, sequence.first_logits()});
  planned_.push_back(&sequence);
  if (!config_.prefix_caching || length == 1) return;
  const size_t full = static_cast<size_t>(sequence.target() / config_.block_size);
  for (size_t i = sequence.published; i < std::min(full, sequence.keys.size()); ++i) {
    draft.keys.insert(sequence.keys[i]);
  }
}

bool Scheduler::MayYield(const Sequence& other, const Sequence& sequence, Yields yields) {
  if (yields == Yields::kLowerRank) return VictimRank(other) > VictimRank(sequence);
  if (yields == Yields::kLowerPrioritySteered && !other.steered()) return false;
  return other.rank > sequence.rank || (other.rank == sequence.rank && other.paused());
}

Sequence* Scheduler::FindVictim(const Sequence& sequence, Yields yields) const {
  Sequence* victim = nullptr;
  for (Sequence* other : running_) {
    if (other == &sequence || !MayYield(*other, sequence, yields)) continue;
    if (victim == nullptr || VictimRank(*other) > VictimRank(*victim)) victim = other;
  }
  return victim;
}

void Scheduler::Preempt(Sequence& victim, Draft& draft) {
  if (const auto planned = std::find(planned_.begin(), planned_.end(), &victim); planned != planned_.end()) {
    const auto item = draft.items.begin() + (planned - planned_.begin());
    draft.budget += item->length;
    Charge(victim, -item->length);
    (IsDecode(victim) ? draft.decode_rows : draft.prefill_rows) -= item->length;
    draft.items.erase(item);
    planned_.erase(planned);
  }
  GiveBack(victim);
  running_.erase(&victim);
  waiting_.insert(&victim);
  ++counters_.preemptions;
  if (metrics_ != nullptr) metrics_->OnPreemption();
}

void Scheduler::GiveBack(Sequence& sequence) {
  blocks_.Release(sequence.blocks);
  sequence.blocks.clear();
  ReleaseSlots(sequence);
  sequence.computed = 0;
  sequence.published = 0;
  if (std::exchange(sequence.running, false)) sequence.tenant->running -= sequence.request->internal ? 0 : 1;
}

void Scheduler::ComputeKeys(Sequence& sequence) {
  if (!config_.prefix_caching) return;
  const int64_t size = config_.block_size;
  for (int64_t i = static_cast<int64_t>(sequence.keys.size()); (i + 1) * size <= sequence.target(); ++i) {
    const Digest128 parent = i == 0 ? Digest128{} : sequence.keys.back();
    const Digest128 steering =
        sequence.request->plan.BlockKey(sequence.request->prompt_length, i * size, (i + 1) * size);
    sequence.keys.push_back(PrefixKey(parent, absl::MakeConstSpan(sequence.tokens).subspan(i * size, size), steering));
  }
}

}  // namespace trimtab
