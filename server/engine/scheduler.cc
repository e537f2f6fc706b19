#include "server/engine/scheduler.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"

namespace trimtab {
namespace {

bool IsDecode(const Sequence& sequence) { return sequence.remaining() == 1 && !sequence.request->score; }

// The greatest is preempted first.
std::tuple<Priority, bool, int64_t> VictimRank(const Sequence& sequence) {
  return {sequence.request->priority, sequence.paused(), sequence.ticket};
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
  sequence.request = std::move(request);
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

StepPlan Scheduler::Plan(absl::Time now) {
  EndExpired(now);
  UpdatePauses(now);
  Draft draft;
  draft.budget = config_.max_step_tokens;
  PlanDecode(draft);
  PlanPrefill(draft, now);
  return StepPlan{std::move(draft.items)};
}

void Scheduler::EndExpired(absl::Time now) {
  std::vector<Sequence*> expired;
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->request->deadline <= now) expired.push_back(sequence.get());
  }
  std::sort(expired.begin(), expired.end(), ServedBefore());
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
  std::sort(stalled.begin(), stalled.end(), ServedBefore());
  for (Sequence* sequence : stalled) {
    if (metrics_ != nullptr) metrics_->OnStall();
    End(*sequence, FinishReason::kCancelled,
        ReasonError(absl::StatusCode::kCancelled, kCancelled,
                    absl::StrCat("the reader took nothing for ", absl::FormatDuration(config_.stall_timeout))),
        now);
  }
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

void Scheduler::PlanPrefill(Draft& draft, absl::Time now) {
  std::vector<Sequence*> candidates;
  for (Sequence* sequence : running_) {
    if (!IsDecode(*sequence) && !sequence->paused()) candidates.push_back(sequence);
  }
  for (Sequence* sequence : waiting_) {
    if (!sequence->paused()) candidates.push_back(sequence);
  }
  std::sort(candidates.begin(), candidates.end(), ServedBefore());
  bool admitting = true;
  for (size_t i = 0; i < candidates.size() && draft.budget > 0; ++i) {
    Sequence& sequence = *candidates[i];
    if (sequence.running) {
      AddItem(sequence, draft);
    } else if (admitting) {
      admitting = TryAdmit(sequence, draft, now);
    }
  }
}

bool Scheduler::TryAdmit(Sequence& sequence, Draft& draft, absl::Time now) {
  if (sequence.steered() && draft.steering_blocked) return true;
  ComputeKeys(sequence);
  const int64_t shareable = config_.prefix_caching ? sequence.first_logits() / config_.block_size : 0;
  if (!draft.keys.empty() && shareable > 0) {
    const int64_t held = blocks_.CountCached(absl::MakeConstSpan(sequence.keys).first(shareable));
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
  if (sequence.first_scheduled == absl::InfinitePast()) {
    sequence.first_scheduled = now;
    sequence.cached_prompt_tokens = sequence.computed;
    if (config_.prefix_caching) {
      counters_.prefix_query_tokens += sequence.target();
      counters_.prefix_hit_tokens += sequence.computed;
      if (metrics_ != nullptr) metrics_->OnPrefixLookup(sequence.target(), sequence.computed);
    }
    if (events_ != nullptr) events_->OnScheduled(*sequence.request);
  }
  AddItem(sequence, draft);
  return true;
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
  if (config_.prefix_caching) {
    const int64_t shareable = sequence.first_logits() / config_.block_size;
    sequence.blocks = blocks_.AcquireCached(absl::MakeConstSpan(sequence.keys).first(shareable));
  }
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

void Scheduler::AddItem(Sequence& sequence, Draft& draft) {
  const int64_t length = std::min(draft.budget, sequence.remaining());
  draft.budget -= length;
  draft.items.push_back({&sequence, sequence.computed, length, sequence.first_logits()});
  if (!config_.prefix_caching || length == 1) return;
  const size_t full = static_cast<size_t>(sequence.target() / config_.block_size);
  for (size_t i = sequence.published; i < std::min(full, sequence.keys.size()); ++i) {
    draft.keys.insert(sequence.keys[i]);
  }
}

bool Scheduler::MayYield(const Sequence& other, const Sequence& sequence, Yields yields) {
  if (yields == Yields::kLowerRank) return VictimRank(other) > VictimRank(sequence);
  if (yields == Yields::kLowerPrioritySteered && !other.steered()) return false;
  return other.request->priority > sequence.request->priority ||
         (other.request->priority == sequence.request->priority && other.paused());
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
  const auto planned = std::find_if(draft.items.begin(), draft.items.end(),
                                    [&](const StepItem& item) { return item.sequence == &victim; });
  if (planned != draft.items.end()) {
    draft.budget += planned->length;
    draft.items.erase(planned);
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
  sequence.running = false;
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

void Scheduler::PublishBlocks(Sequence& sequence) {
  if (!config_.prefix_caching) return;
  const int64_t full = sequence.computed / config_.block_size;
  if (full <= sequence.published) return;
  ComputeKeys(sequence);
  for (; sequence.published < full; ++sequence.published) {
    blocks_.Publish(sequence.blocks[sequence.published], sequence.keys[sequence.published]);
  }
}

void Scheduler::CountDose(Sequence& sequence, const StepItem& item, const StepItemResult& result) {
  const std::vector<PlannedSteering>& entries = sequence.request->plan.entries();
  for (size_t row = 0; row < result.row_dose.size(); ++row) {
    const int64_t position = item.context + static_cast<int64_t>(row);
    if (position < sequence.dosed) continue;  // computed again after a preemption
    for (size_t i = 0; i < entries.size(); ++i) {
      if (entries[i].strength == 0 || position < entries[i].steer_from(sequence.request->prompt_length)) continue;
      sequence.dose_sum[i] += result.row_dose[row];
      ++sequence.dose_rows[i];
    }
  }
  sequence.dosed = std::max(sequence.dosed, item.end());
}

void Scheduler::Commit(const StepPlan& plan, StepResult result, absl::Time now) {
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const StepItem& item = plan.items[i];
    StepItemResult& outcome = result.items[i];
    Sequence& sequence = *sequences_.at(item.sequence->request->id);
    if (!outcome.status.ok()) {
      // What it computed in this step is not published.
      End(sequence, FinishReason::kError, std::move(outcome.status), now);
      continue;
    }
    sequence.computed = item.end();
    CountDose(sequence, item, outcome);
    PublishBlocks(sequence);
    if (sequence.request->score) {
      if (!outcome.scored.empty() && sequence.first_token == absl::InfinitePast()) sequence.first_token = now;
      for (ScoredToken& token : outcome.scored) sequence.scored.push_back(std::move(token));
      if (sequence.remaining() == 0) End(sequence, FinishReason::kStop, absl::OkStatus(), now);
    } else if (outcome.token) {
      CommitToken(sequence, *std::move(outcome.token), now);
    }
  }
}

void Scheduler::CommitToken(Sequence& sequence, OutputToken token, absl::Time now) {
  const SamplingParams& sampling = sequence.request->sampling;
  if (sequence.first_token == absl::InfinitePast()) {
    sequence.first_token = now;
  } else if (metrics_ != nullptr) {
    metrics_->OnInterTokenLatency(sequence.steered(), now - sequence.last_token);
  }
  sequence.last_token = now;
  if (std::find(sampling.end_tokens.begin(), sampling.end_tokens.end(), token.token) != sampling.end_tokens.end()) {
    End(sequence, FinishReason::kStop, absl::OkStatus(), now);
    return;
  }
  sequence.tokens.push_back(token.token);
  sequence.request->sink->OnToken(std::move(token));
  if (sequence.output_tokens() >= sampling.max_output_tokens ||
      static_cast<int64_t>(sequence.tokens.size()) >= config_.max_context) {
    End(sequence, FinishReason::kLength, absl::OkStatus(), now);
  }
}

void Scheduler::End(Sequence& sequence, FinishReason reason, absl::Status status, absl::Time now) {
  (sequence.running ? running_ : waiting_).erase(&sequence);
  GiveBack(sequence);
  const Request& request = *sequence.request;

  RequestEnd end;
  end.reason = reason;
  end.status = std::move(status);
  end.usage.prompt_tokens = request.prompt_length;
  end.usage.cached_prompt_tokens = std::min(sequence.cached_prompt_tokens, request.prompt_length);
  end.usage.output_tokens = sequence.output_tokens();
  const bool scheduled = sequence.first_scheduled != absl::InfinitePast();
  const bool answered = sequence.first_token != absl::InfinitePast();
  end.timing.queue = (scheduled ? sequence.first_scheduled : now) - sequence.arrival;
  if (scheduled) end.timing.prefill = (answered ? sequence.first_token : now) - sequence.first_scheduled;
  if (answered) end.timing.decode = now - sequence.first_token;
  for (size_t i = 0; i < request.plan.entries().size(); ++i) {
    const PlannedSteering& entry = request.plan.entries()[i];
    AppliedDose dose;
    if (entry.strength != 0) {
      // Shared blocks count: they hold the same steering, whoever computed them.
      dose.steered_tokens = std::max<int64_t>(0, sequence.dosed - entry.steer_from(request.prompt_length));
    }
    if (sequence.dose_rows[i] > 0) {
      dose.mean_relative_dose = static_cast<float>(sequence.dose_sum[i] / static_cast<double>(sequence.dose_rows[i]));
    }
    end.doses.push_back(dose);
  }
  end.scored = std::move(sequence.scored);

  if (metrics_ != nullptr) {
    RequestObservation observation;
    observation.reason = reason;
    observation.steered = sequence.steered();
    observation.score = request.score;
    observation.usage = end.usage;
    observation.timing = end.timing;
    if (answered) observation.time_to_first_token = sequence.first_token - sequence.arrival;
    observation.total = now - sequence.arrival;
    metrics_->OnRequestEnd(observation);
  }
  if (events_ != nullptr) events_->OnEnded(request);
  const auto node = sequences_.extract(request.id);  // keeps the request until its sink was told
  request.sink->OnEnd(std::move(end));
}

absl::Time Scheduler::NextEvent() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [id, sequence] : sequences_) {
    next = std::min(next, sequence->request->deadline);
    if (sequence->paused()) next = std::min(next, sequence->paused_since + config_.stall_timeout);
  }
  return next;
}

absl::Status Scheduler::CheckInvariants() const {
  if (absl::Status status = blocks_.CheckInvariants(); !status.ok()) return status;
  if (running_.size() + waiting_.size() != sequences_.size()) return absl::InternalError("a sequence is in no queue");
  std::vector<int64_t> references(static_cast<size_t>(blocks_.num_blocks()), 0);
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->running != (running_.count(sequence.get()) == 1)) {
      return absl::InternalError(absl::StrCat(id, " is in the wrong queue"));
    }
    const bool holds = !sequence->blocks.empty() || sequence->computed != 0 ||
                       std::any_of(sequence->slots.begin(), sequence->slots.end(), [](int32_t s) { return s >= 0; });
    if (!sequence->running && holds) return absl::InternalError(absl::StrCat(id, " waits and holds something"));
    if (sequence->computed > static_cast<int64_t>(sequence->blocks.size()) * config_.block_size) {
      return absl::InternalError(absl::StrCat(id, " has computed more than its blocks hold"));
    }
    for (int32_t block : sequence->blocks) ++references[block];
  }
  for (int32_t block = 0; block < blocks_.num_blocks(); ++block) {
    if (references[block] != blocks_.references(block)) {
      return absl::InternalError(absl::StrCat("block ", block, " has ", blocks_.references(block), " references, ",
                                              references[block], " sequences hold it"));
    }
  }
  return absl::OkStatus();
}

}  // namespace trimtab
