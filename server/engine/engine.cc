#include "server/engine/engine.h"

#include <c10/util/Exception.h>

#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/engine/engine_thread.h"

namespace trimtab {
namespace {

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
    auto thread = std::make_unique<EngineThread>(*model, config, num_blocks, clock, metrics);
    return std::unique_ptr<Engine>(new Engine(std::move(model), std::move(thread)));
  } catch (const c10::Error& error) {
    LogError("the engine could not start", {{"error", error.what_without_backtrace()}});
    return out_of_memory();
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  }
}

Engine::Engine(std::shared_ptr<const LoadedModel> model, std::unique_ptr<EngineThread> thread)
    : model_(std::move(model)), thread_(std::move(thread)) {}

Engine::~Engine() = default;

absl::Status Engine::Submit(std::unique_ptr<Request> request) { return thread_->Submit(std::move(request)); }

void Engine::Abort(const std::string& id, FinishReason reason) { thread_->Abort(id, reason); }

void Engine::Resume(const std::string& /*id*/) { thread_->Wake(); }

void Engine::Drain(absl::Time deadline, const absl::Status& why) { thread_->Drain(deadline, why); }

absl::Status Engine::ShuttingDown() {
  return ReasonError(absl::StatusCode::kUnavailable, kShuttingDown, "the server is shutting down");
}

bool Engine::idle() const { return thread_->idle(); }

EngineStats Engine::stats() const { return thread_->stats(); }

absl::StatusOr<std::vector<ScoreOutcome>> Engine::Score(std::vector<ScoreItem> items) {
  auto call = std::make_shared<ScoreCall>(items.size(), thread_->score_window());
  std::vector<std::string> ids;
  for (size_t i = 0; i < items.size() && call->WaitForRoom(); ++i) {
    auto request = std::make_unique<Request>();
    request->id = thread_->NewScoreId();
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
    const absl::Status submitted = thread_->Submit(std::move(request));
    if (!submitted.ok()) call->Refused(submitted);
  }
  return call->Await([&] {
    for (const std::string& id : ids) thread_->Abort(id, FinishReason::kCancelled);
  });
}

}  // namespace trimtab
