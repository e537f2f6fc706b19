#include "server/engine/engine_thread.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

// So many steps in a row that fail as a whole: something is broken that retrying does not mend.
constexpr int kUnhealthyAfter = 8;

absl::Status AbortStatus(FinishReason reason) {
  switch (reason) {
    case FinishReason::kCancelled:
      return ReasonError(absl::StatusCode::kCancelled, kCancelled, "the request was cancelled");
    case FinishReason::kDeadline:
      return ReasonError(absl::StatusCode::kDeadlineExceeded, kDeadlineExceeded, "the request's deadline passed");
    case FinishReason::kError:
      return ReasonError(absl::StatusCode::kInternal, kInternal, "the request failed");
    default:
      return absl::OkStatus();
  }
}

}  // namespace

EngineThread::EngineThread(const LoadedModel& model, const EngineConfig& config, int64_t num_blocks, const Clock& clock,
                           EngineMetrics* metrics)
    : config_(config),
      clock_(clock),
      metrics_(metrics),
      spec_(model.model->spec()),
      limits_{.max_context =
                  config.max_context > 0 ? std::min(config.max_context, spec_.context_length) : spec_.context_length,
              .cache_tokens = num_blocks * config.block_size},
      cache_(spec_, num_blocks, config.block_size, model.model->dtype()),
      attention_(cache_),
      bank_(config.steering_slots, spec_.num_layers(), spec_.hidden_size),
      slots_(bank_),
      runner_(*model.model, attention_, bank_, config.block_size, config.num_threads),
      scheduler_(MakeSchedulerConfig(num_blocks), slots_, metrics, this) {
  stats_.free_blocks = stats_.total_blocks = num_blocks;
  thread_ = std::thread([this] { Loop(); });
}

EngineThread::~EngineThread() {
  {
    absl::MutexLock lock(&mutex_);
    if (draining_.ok()) draining_ = Engine::ShuttingDown();
    stopping_ = true;
  }
  thread_.join();
}

absl::Status EngineThread::Submit(std::unique_ptr<Request> request) {
  TRIMTAB_RETURN_IF_ERROR(CheckRequest(*request, spec_, limits_));
  if (request->deadline <= clock_.Now()) return AbortStatus(FinishReason::kDeadline);
  absl::MutexLock lock(&mutex_);
  if (!draining_.ok()) return draining_;
  if (!stats_.healthy) {
    return ReasonError(absl::StatusCode::kUnavailable, kEngineUnhealthy, "the engine's steps keep failing");
  }
  const bool counted = !request->internal;
  if (counted && waiting_requests_ >= config_.max_waiting_requests) {
    return OverloadError(kQueueFull, absl::StrCat(waiting_requests_, " requests are waiting already"),
                         absl::Seconds(1));
  }
  if (counted && config_.max_waiting_per_tenant > 0) {
    const auto waiting = waiting_of_tenants_.find(request->tenant);
    if (waiting != waiting_of_tenants_.end() && waiting->second >= config_.max_waiting_per_tenant) {
      return OverloadError(kQuotaExceeded, absl::StrCat(waiting->second, " requests of this tenant are waiting"),
                           absl::Seconds(1));
    }
  }
  if (!live_.emplace(request->id, Live{.counted = counted}).second) {
    return FieldError({{"request_id", "a request with this id is in flight"}});
  }
  if (counted) {
    ++waiting_requests_;
    ++waiting_of_tenants_[request->tenant];
  }
  if (request->priority == Priority::kInteractive) ++interactive_;
  inbox_.emplace_back(std::move(request));
  return absl::OkStatus();
}

void EngineThread::Abort(const std::string& id, FinishReason reason) {
  absl::MutexLock lock(&mutex_);
  if (live_.count(id) > 0) inbox_.emplace_back(AbortMessage{id, reason});
}

void EngineThread::Wake() {
  absl::MutexLock lock(&mutex_);
  woken_ = true;
}

void EngineThread::Drain(absl::Time deadline, const absl::Status& why) {
  absl::MutexLock lock(&mutex_);
  if (draining_.ok()) draining_ = why;
  const absl::Condition ended(this, &EngineThread::AllEnded);
  if (mutex_.AwaitWithTimeout(ended, deadline - clock_.Now())) return;
  inbox_.emplace_back(AbortAllMessage{draining_});
  mutex_.Await(ended);
}

EngineStats EngineThread::stats() const {
  absl::MutexLock lock(&mutex_);
  return stats_;
}

SchedulerConfig EngineThread::MakeSchedulerConfig(int64_t num_blocks) const {
  SchedulerConfig config;
  config.num_blocks = num_blocks;
  config.block_size = config_.block_size;
  config.max_running_requests = config_.max_running_requests;
  config.max_step_tokens = config_.max_step_tokens;
  config.max_step_time = config_.max_step_time;
  config.max_running_per_tenant = config_.max_running_per_tenant;
  config.max_context = std::min(limits_.max_context, limits_.cache_tokens);
  config.stall_timeout = config_.stall_timeout;
  config.prefix_caching = config_.prefix_caching;
  return config;
}

void EngineThread::OnScheduled(const Request& request) {
  absl::MutexLock lock(&mutex_);
  StopCounting(request, live_.at(request.id));
}

void EngineThread::OnEnded(const Request& request) {
  absl::MutexLock lock(&mutex_);
  const auto it = live_.find(request.id);
  StopCounting(request, it->second);
  live_.erase(it);
  if (request.priority == Priority::kInteractive) --interactive_;
}

void EngineThread::StopCounting(const Request& request, Live& live) {
  if (!std::exchange(live.counted, false)) return;
  --waiting_requests_;
  const auto tenant = waiting_of_tenants_.find(request.tenant);
  if (--tenant->second == 0) waiting_of_tenants_.erase(tenant);
}

void EngineThread::Loop() {
  at::NoGradGuard no_grad;
  if (config_.num_threads > 0) at::set_num_threads(config_.num_threads);
  bool busy = false;
  while (TakeMessages(busy)) busy = Step();
  scheduler_.AbortAll(FinishReason::kCancelled, Engine::ShuttingDown(), clock_.Now());
  Publish();
}

bool EngineThread::TakeMessages(bool busy) {
  std::vector<Message> messages;
  bool stopping;
  {
    absl::MutexLock lock(&mutex_);
    if (!busy) {
      mutex_.AwaitWithTimeout(absl::Condition(this, &EngineThread::HasNews), scheduler_.NextEvent() - clock_.Now());
    }
    messages.swap(inbox_);
    woken_ = false;
    settled_ = false;
    stopping = stopping_;
  }
  const absl::Time now = clock_.Now();
  for (Message& message : messages) {
    if (auto* request = std::get_if<std::unique_ptr<Request>>(&message)) {
      scheduler_.Submit(std::move(*request), now);
    } else if (const auto* abort = std::get_if<AbortMessage>(&message)) {
      scheduler_.Abort(abort->id, abort->reason, AbortStatus(abort->reason), now);
    } else {
      scheduler_.AbortAll(FinishReason::kCancelled, std::get<AbortAllMessage>(message).why, now);
    }
  }
  return !stopping;
}

bool EngineThread::Step() {
  const StepPlan& plan = scheduler_.Plan(clock_.Now());
  if (plan.items.empty()) {
    Publish();
    return false;
  }
  StepObservation observation = Observe(plan);
  const auto begin = std::chrono::steady_clock::now();
  StepResult& result = runner_.Execute(plan);
  observation.duration = absl::FromChrono(std::chrono::steady_clock::now() - begin);
  observation.steering_duration = result.steering_duration;
  observation.nonfinite_rows = result.nonfinite_rows;
  for (size_t i = 0; i < plan.items.size(); ++i) {
    if (!result.items[i].token) continue;
    ++(plan.items[i].sequence->steered() ? observation.steered_output_tokens : observation.unsteered_output_tokens);
  }
  failed_steps_ = result.failed ? failed_steps_ + 1 : 0;
  scheduler_.Commit(plan, std::move(result), clock_.Now());
  if (metrics_ != nullptr) metrics_->OnStep(observation);
  Publish();
  return true;
}

StepObservation EngineThread::Observe(const StepPlan& plan) {
  StepObservation observation;
  observation.sequences = static_cast<int64_t>(plan.items.size());
  for (const StepItem& item : plan.items) {
    const bool decode = item.length == 1 && item.sequence->output_tokens() > 0 && !item.sequence->request->score;
    (decode ? observation.decode_tokens : observation.prefill_tokens) += item.length;
    observation.steered_sequences += item.sequence->steered() ? 1 : 0;
  }
  return observation;
}

void EngineThread::Publish() {
  const KvBlockManager& blocks = scheduler_.blocks();
  QueueObservation queues;
  queues.running = scheduler_.running();
  queues.waiting = scheduler_.waiting();
  queues.used_blocks = blocks.num_blocks() - blocks.available();
  queues.total_blocks = blocks.num_blocks();
  if (metrics_ != nullptr) {
    metrics_->OnQueues(queues);
    const SteeringBank::Counters& bank = bank_.counters();
    metrics_->OnBank(bank.hits, bank.misses, bank.evictions, bank.uploaded_bytes, bank_.bytes());
  }
  absl::MutexLock lock(&mutex_);
  settled_ = scheduler_.empty();
  stats_.running = queues.running;
  stats_.waiting = queues.waiting;
  stats_.free_blocks = blocks.available();
  stats_.preemptions = scheduler_.counters().preemptions;
  stats_.prefix_cache_hit_tokens = scheduler_.counters().prefix_hit_tokens;
  stats_.prefix_cache_query_tokens = scheduler_.counters().prefix_query_tokens;
  if (failed_steps_ >= kUnhealthyAfter && stats_.healthy) {
    stats_.healthy = false;
    LogError("the engine is unhealthy", {{"failed_steps", absl::StrCat(failed_steps_)}});
  }
}

}  // namespace trimtab
