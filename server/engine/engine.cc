#include "server/engine/engine.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <new>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "models/attention/kv_cache.h"
#include "models/attention/paged_attention.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/engine/engine_metrics.h"
#include "server/engine/model_runner.h"
#include "server/engine/request_check.h"
#include "server/engine/scheduler.h"
#include "server/engine/score_call.h"
#include "steering/runtime/steering_bank.h"

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

absl::Status CheckConfig(const EngineConfig& config) {
  std::vector<FieldViolation> violations;
  const auto check = [&](bool good, std::string field, std::string description) {
    if (!good) violations.push_back({std::move(field), std::move(description)});
  };
  check(config.block_size >= 1, "block_size", "must be at least 1");
  check(config.max_running_requests >= 1, "max_running_requests", "must be at least 1");
  check(config.max_waiting_requests >= 1, "max_waiting_requests", "must be at least 1");
  check(config.max_step_tokens >= 1, "max_step_tokens", "must be at least 1");
  check(config.max_step_time > absl::ZeroDuration(), "max_step_time", "must be above 0");
  check(config.max_waiting_per_tenant >= 0, "max_waiting_per_tenant", "must be 0 or more");
  check(config.max_running_per_tenant >= 0, "max_running_per_tenant", "must be 0 or more");
  check(config.steering_slots >= kMaxSelections, "steering_slots", absl::StrCat("must be at least ", kMaxSelections));
  check(config.max_context >= 0, "max_context", "must be 0 or more");
  return violations.empty() ? absl::OkStatus() : FieldError(std::move(violations));
}

}  // namespace

class Engine::Impl final : private SchedulerEvents {
 public:
  // Throws std::bad_alloc or c10::Error when the memory is not there.
  Impl(const LoadedModel& model, const EngineConfig& config, int64_t num_blocks, const Clock& clock,
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

  ~Impl() override {
    {
      absl::MutexLock lock(&mutex_);
      if (draining_.ok()) draining_ = ShuttingDown();
      stopping_ = true;
    }
    thread_.join();
  }

  absl::Status Submit(std::unique_ptr<Request> request) {
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

  void Abort(const std::string& id, FinishReason reason) {
    absl::MutexLock lock(&mutex_);
    if (live_.count(id) > 0) inbox_.emplace_back(AbortMessage{id, reason});
  }

  void Wake() {
    absl::MutexLock lock(&mutex_);
    woken_ = true;
  }

  void Drain(absl::Time deadline, const absl::Status& why) {
    absl::MutexLock lock(&mutex_);
    if (draining_.ok()) draining_ = why;
    const absl::Condition ended(this, &Impl::AllEnded);
    if (mutex_.AwaitWithTimeout(ended, deadline - clock_.Now())) return;
    inbox_.emplace_back(AbortAllMessage{draining_});
    mutex_.Await(ended);
  }

  bool idle() const { return interactive_.load(std::memory_order_relaxed) == 0; }

  EngineStats stats() const {
    absl::MutexLock lock(&mutex_);
    return stats_;
  }

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

  SchedulerConfig MakeSchedulerConfig(int64_t num_blocks) const {
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

  bool AllEnded() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return inbox_.empty() && settled_ && live_.empty(); }
  bool HasNews() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !inbox_.empty() || woken_ || stopping_; }

  void OnScheduled(const Request& request) override {
    absl::MutexLock lock(&mutex_);
    StopCounting(request, live_.at(request.id));
  }
  void OnEnded(const Request& request) override {
    absl::MutexLock lock(&mutex_);
    const auto it = live_.find(request.id);
    StopCounting(request, it->second);
    live_.erase(it);
    if (request.priority == Priority::kInteractive) --interactive_;
  }
  void StopCounting(const Request& request, Live& live) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!std::exchange(live.counted, false)) return;
    --waiting_requests_;
    const auto tenant = waiting_of_tenants_.find(request.tenant);
    if (--tenant->second == 0) waiting_of_tenants_.erase(tenant);
  }

  void Loop() {
    at::NoGradGuard no_grad;
    if (config_.num_threads > 0) at::set_num_threads(config_.num_threads);
    bool busy = false;
    while (TakeMessages(busy)) busy = Step();
    scheduler_.AbortAll(FinishReason::kCancelled, ShuttingDown(), clock_.Now());
    Publish();
  }

  // Applies what came in; waits for something unless `busy`. False when the engine is to stop.
  bool TakeMessages(bool busy) {
    std::vector<Message> messages;
    bool stopping;
    {
      absl::MutexLock lock(&mutex_);
      if (!busy) {
        mutex_.AwaitWithTimeout(absl::Condition(this, &Impl::HasNews), scheduler_.NextEvent() - clock_.Now());
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

  // One step; false when there was nothing to do.
  bool Step() {
    const StepPlan plan = scheduler_.Plan(clock_.Now());
    if (plan.items.empty()) {
      Publish();
      return false;
    }
    StepObservation observation = Observe(plan);
    const auto begin = std::chrono::steady_clock::now();
    StepResult result = runner_.Execute(plan);
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

  static StepObservation Observe(const StepPlan& plan) {
    StepObservation observation;
    observation.sequences = static_cast<int64_t>(plan.items.size());
    for (const StepItem& item : plan.items) {
      const bool decode = item.length == 1 && item.sequence->output_tokens() > 0 && !item.sequence->request->score;
      (decode ? observation.decode_tokens : observation.prefill_tokens) += item.length;
      observation.steered_sequences += item.sequence->steered() ? 1 : 0;
    }
    return observation;
  }

  // Shows the state to other threads and to the metrics.
  void Publish() {
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

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(std::shared_ptr<const LoadedModel> model,
                                                       const EngineConfig& config, const Clock& clock,
                                                       EngineMetrics* metrics) {
  TRIMTAB_RETURN_IF_ERROR(CheckConfig(config));
  const int64_t block_bytes =
      config.block_size * model->model->spec().kv_bytes_per_token(c10::elementSize(model->model->dtype()));
  const int64_t num_blocks = config.kv_cache_bytes / block_bytes;
  if (num_blocks < 1) {
    return ReasonError(absl::StatusCode::kInvalidArgument, kKvCacheTooSmall,
                       absl::StrCat("a KV cache of ", config.kv_cache_bytes, " bytes holds no block of ", block_bytes));
  }
  const auto out_of_memory = [&] {
    return ReasonError(absl::StatusCode::kResourceExhausted, kDeviceOutOfMemory,
                       absl::StrCat("cannot allocate a KV cache of ", config.kv_cache_bytes, " bytes"));
  };
  try {
    auto impl = std::make_unique<Impl>(*model, config, num_blocks, clock, metrics);
    return std::unique_ptr<Engine>(new Engine(std::move(model), std::move(impl)));
  } catch (const c10::Error& error) {
    LogError("the engine could not start", {{"error", error.what_without_backtrace()}});
    return out_of_memory();
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  }
}

Engine::Engine(std::shared_ptr<const LoadedModel> model, std::unique_ptr<Impl> impl)
    : model_(std::move(model)), impl_(std::move(impl)) {}

Engine::~Engine() = default;

absl::Status Engine::Submit(std::unique_ptr<Request> request) { return impl_->Submit(std::move(request)); }

void Engine::Abort(const std::string& id, FinishReason reason) { impl_->Abort(id, reason); }

void Engine::Resume(const std::string& /*id*/) { impl_->Wake(); }

void Engine::Drain(absl::Time deadline, const absl::Status& why) { impl_->Drain(deadline, why); }

absl::Status Engine::ShuttingDown() {
  return ReasonError(absl::StatusCode::kUnavailable, kShuttingDown, "the server is shutting down");
}

bool Engine::idle() const { return impl_->idle(); }

EngineStats Engine::stats() const { return impl_->stats(); }

absl::StatusOr<std::vector<ScoreOutcome>> Engine::Score(std::vector<ScoreItem> items) {
  auto call = std::make_shared<ScoreCall>(items.size(), impl_->score_window());
  std::vector<std::string> ids;
  for (size_t i = 0; i < items.size() && call->WaitForRoom(); ++i) {
    auto request = std::make_unique<Request>();
    request->id = impl_->NewScoreId();
    request->tokens = std::move(items[i].tokens);
    request->prompt_length = items[i].prompt_length;
    request->score = true;
    request->score_top = items[i].top;
    request->score_watch = std::move(items[i].watch);
    request->plan = std::move(items[i].plan);
    request->priority = Priority::kBackground;
    request->internal = true;
    request->sink = call->Sink(i);
    ids.push_back(request->id);
    const absl::Status submitted = impl_->Submit(std::move(request));
    if (!submitted.ok()) call->Refused(submitted);
  }
  return call->Await([&] {
    for (const std::string& id : ids) impl_->Abort(id, FinishReason::kCancelled);
  });
}

}  // namespace trimtab
