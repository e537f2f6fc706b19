// What becomes of a step's results, and of a request at its end; scheduler.cc plans the steps.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/scheduler.h"

namespace trimtab {

void Scheduler::PublishBlocks(Sequence& sequence) {
  if (!config_.prefix_caching) return;
  const int64_t full = sequence.computed / config_.block_size;
  if (full <= sequence.published) return;
  ComputeKeys(sequence);
  for (; sequence.published < full; ++sequence.published) {
    blocks_.Publish(sequence.blocks[sequence.published], sequence.keys[sequence.published]);
  }
}

void Scheduler::CountDose(Sequence& sequence, const StepItem& item, absl::Span<const float> row_dose) {
  const std::vector<PlannedSteering>& entries = sequence.request->plan.entries();
  for (size_t row = 0; row < row_dose.size(); ++row) {
    const int64_t position = item.context + static_cast<int64_t>(row);
    if (position < sequence.dosed) continue;  // computed again after a preemption
    for (size_t i = 0; i < entries.size(); ++i) {
      if (entries[i].strength == 0 || position < entries[i].steer_from(sequence.request->prompt_length)) continue;
      sequence.dose_sum[i] += row_dose[row];
      ++sequence.dose_rows[i];
    }
  }
  sequence.dosed = std::max(sequence.dosed, item.end());
}

void Scheduler::Commit(const StepPlan& plan, StepResult&& result, absl::Time now) {
  if (!plan.items.empty()) {
    cost_.Observe(planned_decode_rows_, plan.num_tokens() - planned_decode_rows_, now - planned_at_);
  }
  int64_t row = 0;
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const StepItem& item = plan.items[i];
    const int64_t begin = std::exchange(row, row + item.length);
    StepItemResult& outcome = result.items[i];
    Sequence& sequence = *planned_[i];
    if (!outcome.status.ok()) {
      // What it computed in this step is not published.
      End(sequence, FinishReason::kError, std::move(outcome.status), now);
      continue;
    }
    sequence.computed = item.end();
    CountDose(sequence, item,
              result.row_dose.empty() ? absl::Span<const float>()
                                      : absl::MakeConstSpan(result.row_dose).subspan(begin, item.length));
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
  tenants_.Leave(request.tenant, request.priority);
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
