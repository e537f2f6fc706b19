#include "server/model_host.h"

#include <malloc.h>

#include <algorithm>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "models/checkpoint_plan.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/resource_name.h"
#include "server/base/status_macros.h"
#include "server/engine_model.h"
#include "server/model_path.h"
#include "server/rpc/grpc_status.h"

namespace trimtab {
namespace {

// What an engine needs beside weights and cache: workspace, steering bank, tokenizer; and what loading needs for a
// while.
constexpr int64_t kWorkingMemory = int64_t{192} << 20;

Precision PrecisionOf(const std::string& name) {
  if (name == "float32") return Precision::kFloat32;
  if (name == "bfloat16") return Precision::kBFloat16;
  if (name == "file") return Precision::kFile;
  return Precision::kAuto;
}

// What the weights will take. Refuses what LoadModel would refuse for its tensors, without reading any.
absl::StatusOr<int64_t> PlanWeights(const ModelPlan& plan) {
  TRIMTAB_ASSIGN_OR_RETURN(const CheckpointPlan checkpoint, PlanCheckpoint(plan.path));
  TRIMTAB_RETURN_IF_ERROR(CheckComplete(checkpoint, plan.path));
  TRIMTAB_ASSIGN_OR_RETURN(const WeightForm form,
                           ChooseWeightForm(PrecisionOf(plan.precision), checkpoint.quantised()));
  return WeightBytes(checkpoint, form);
}

// A model that is not served, as far as its plan tells.
v1::Model DescribePlan(const std::string& id, const std::string& relative_path, v1::Model::State state) {
  v1::Model model;
  model.set_name(ModelName(id));
  model.set_path(relative_path);
  model.set_state(state);
  return model;
}

std::string Mebibytes(int64_t bytes) { return absl::StrCat((bytes + (1 << 20) - 1) >> 20, " MiB"); }

}  // namespace

// Members are destroyed in reverse: the engine's thread uses the metrics and the weights.
struct ModelHost::Hosted {
  std::string id;
  std::string relative_path;
  std::shared_ptr<const LoadedModel> loaded;
  std::shared_ptr<ModelMetrics> metrics;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<EngineModel> served;
  const std::shared_ptr<absl::Notification> gone = std::make_shared<absl::Notification>();
};

ModelHost::ModelHost(Parts parts) : parts_(std::move(parts)), reaper_(parts_.clock) {}

ModelHost::~ModelHost() {
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, hosted] : hosted_) {
      parts_.metrics.RemoveModel(id);
      directory_.Remove(id);
    }
    hosted_.clear();
  }
  reaper_.Stop();
}

std::shared_ptr<ModelHost::Hosted> ModelHost::Find(std::string_view id) const {
  absl::MutexLock lock(&mutex_);
  const auto found = hosted_.find(id);
  return found == hosted_.end() ? nullptr : found->second;
}

absl::StatusOr<std::shared_ptr<const LoadedModel>> ModelHost::FindLoaded(std::string_view id) const {
  TRIMTAB_RETURN_IF_ERROR(directory_.Find(id).status());
  const std::shared_ptr<Hosted> hosted = Find(id);
  if (hosted == nullptr) return NotFoundError(kModelNotFound, "model", ModelName(id));
  // Shares the life of all of it.
  return std::shared_ptr<const LoadedModel>(hosted, hosted->loaded.get());
}

bool ModelHost::idle() const {
  absl::MutexLock lock(&mutex_);
  return std::all_of(hosted_.begin(), hosted_.end(), [](const auto& entry) { return entry.second->engine->idle(); });
}

ModelPlan ModelHost::PlanConfigured(const ModelSource& source) const {
  return {.id = source.id,
          .path = source.path,
          .precision = parts_.config.precision,
          .kv_cache_mib = parts_.config.kv_cache_mib};
}

absl::StatusOr<ModelPlan> ModelHost::PlanRequested(const v1::LoadModelRequest& request) const {
  TRIMTAB_ASSIGN_OR_RETURN(const ModelPath path, ResolveModelPath(parts_.config.model_root, request.path()));
  return ModelPlan{.id = request.model_id(),
                   .path = path.absolute,
                   .relative_path = path.relative,
                   .precision = request.precision().empty() ? parts_.config.precision : request.precision(),
                   .kv_cache_mib = request.has_kv_cache_mib() ? request.kv_cache_mib() : parts_.config.kv_cache_mib};
}

absl::StatusOr<ModelPlan> ModelHost::PlanRemembered(const ModelRecord& record) const {
  TRIMTAB_ASSIGN_OR_RETURN(const ModelPath path, ResolveModelPath(parts_.config.model_root, record.path));
  return ModelPlan{.id = ParseModelName(record.name).value_or(""),
                   .path = path.absolute,
                   .relative_path = record.path,
                   .precision = record.precision,
                   .kv_cache_mib = record.kv_cache_mib};
}

absl::Status ModelHost::CheckFree(const std::string& id) const {
  {
    absl::MutexLock lock(&mutex_);
    const auto released = released_.find(id);
    if (released != released_.end() && !released->second->HasBeenNotified()) {
      return ModelNotReadyError(DescribePlan(id, "", v1::Model::STATE_UNLOADING));
    }
  }
  const absl::StatusOr<v1::Model> model = directory_.Describe(id);
  if (!model.ok() || model->state() == v1::Model::STATE_FAILED || model->state() == v1::Model::STATE_LOADING) {
    return absl::OkStatus();
  }
  if (model->state() == v1::Model::STATE_UNLOADING) return ModelNotReadyError(*model);
  return ReasonError(absl::StatusCode::kAlreadyExists, kModelExists,
                     absl::StrCat("model \"", model->name(), "\" is served already"), {{"model", model->name()}});
}

absl::Status ModelHost::CheckMemory(int64_t bytes) const {
  const int64_t needed = bytes + kWorkingMemory, available = parts_.available_memory();
  if (needed <= available) return absl::OkStatus();
  return ReasonError(absl::StatusCode::kResourceExhausted, kDeviceOutOfMemory,
                     absl::StrCat("the model needs ", Mebibytes(needed), ", ", Mebibytes(available),
                                  " are available: give it a smaller kv_cache_mib, or unload another model"),
                     {{"needed_bytes", absl::StrCat(needed)}, {"available_bytes", absl::StrCat(available)}});
}

absl::StatusOr<v1::Model> ModelHost::CheckLoad(const v1::LoadModelRequest& request) {
  TRIMTAB_ASSIGN_OR_RETURN(const ModelPlan plan, PlanRequested(request));
  TRIMTAB_RETURN_IF_ERROR(CheckFree(plan.id));
  const absl::StatusOr<v1::Model> listed = directory_.Describe(plan.id);
  if (listed.ok() && listed->state() == v1::Model::STATE_LOADING) {
    return ReasonError(absl::StatusCode::kAlreadyExists, kModelExists,
                       absl::StrCat("model \"", listed->name(), "\" is being loaded already"),
                       {{"model", listed->name()}});
  }
  v1::Model model = DescribePlan(plan.id, plan.relative_path, v1::Model::STATE_LOADING);
  TRIMTAB_ASSIGN_OR_RETURN(const int64_t weights, PlanWeights(plan));
  model.set_weight_bytes(weights);
  model.set_kv_cache_bytes(plan.kv_cache_mib << 20);
  TRIMTAB_RETURN_IF_ERROR(CheckMemory(model.weight_bytes() + model.kv_cache_bytes()));
  return model;
}

absl::Status ModelHost::CheckUnload(const std::string& id) {
  TRIMTAB_ASSIGN_OR_RETURN(const v1::Model model, directory_.Describe(id));
  if (model.state() == v1::Model::STATE_LOADING || model.state() == v1::Model::STATE_UNLOADING) {
    return ModelNotReadyError(model);
  }
  return absl::OkStatus();
}

EngineConfig ModelHost::EngineConfigOf(const ModelPlan& plan) const {
  const ServerConfig& config = parts_.config;
  EngineConfig engine;
  engine.kv_cache_bytes = plan.kv_cache_mib << 20;
  engine.max_running_requests = config.max_running_requests;
  engine.max_waiting_requests = config.max_waiting_requests;
  engine.max_step_tokens = config.max_step_tokens;
  engine.max_step_time = config.max_step_time;
  engine.max_waiting_per_tenant = config.max_waiting_per_tenant;
  engine.max_running_per_tenant = config.max_running_per_tenant;
  engine.max_context = config.max_context;
  engine.steering_slots = config.steering_slots;
  engine.prefix_caching = config.prefix_caching;
  engine.num_threads = config.engine_threads;
  return engine;
}

absl::StatusOr<std::shared_ptr<ModelHost::Hosted>> ModelHost::Make(const ModelPlan& plan,
                                                                   std::shared_ptr<const LoadedModel> loaded) {
  std::shared_ptr<Hosted> hosted(new Hosted, [this](Hosted* unused) {
    reaper_.Post([unused] {
      const std::shared_ptr<absl::Notification> gone = unused->gone;
      if (unused->served != nullptr) LogInfo("model unloaded", {{"model", unused->id}});
      delete unused;
      malloc_trim(0);  // small pieces of the tokenizer and the tables
      gone->Notify();
    });
  });
  const EngineConfig config = EngineConfigOf(plan);
  const int64_t own_context = loaded->model->spec().context_length;
  const int64_t context_length = config.max_context > 0 ? std::min(own_context, config.max_context) : own_context;
  hosted->id = plan.id;
  hosted->relative_path = plan.relative_path;
  hosted->loaded = std::move(loaded);
  hosted->metrics = parts_.metrics.AddModel(*hosted->loaded, config, context_length);
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      Engine::Create(hosted->loaded, config, parts_.clock, hosted->metrics.get());
  if (!engine.ok()) {
    Discard(std::move(hosted));
    return engine.status();
  }
  hosted->engine = *std::move(engine);
  v1::Model more;
  more.set_path(plan.relative_path);
  more.set_weight_bytes(hosted->loaded->model->weight_bytes());
  more.set_kv_cache_bytes(config.kv_cache_bytes);
  hosted->served = std::make_unique<EngineModel>(
      hosted->loaded, *hosted->engine, context_length, parts_.drift_suites, parts_.clock.Now(),
      [this, id = plan.id] { parts_.on_health(id, false); }, more);
  return hosted;
}

void ModelHost::Discard(std::shared_ptr<Hosted> hosted) {
  const std::shared_ptr<absl::Notification> gone = hosted->gone;
  parts_.metrics.RemoveModel(hosted->id);
  hosted.reset();
  gone->WaitForNotification();
}

void ModelHost::Serve(const std::shared_ptr<Hosted>& hosted) {
  directory_.Add(std::shared_ptr<ServedModel>(hosted, hosted->served.get()));
  parts_.on_health(hosted->id, true);
}

absl::StatusOr<v1::Model> ModelHost::Load(const ModelPlan& plan, bool admit,
                                          absl::FunctionRef<absl::Status(JobPhase)> step) {
  const absl::Time start = parts_.clock.Now();
  const LoadOptions options{.precision = PrecisionOf(plan.precision),
                            .go_on = [&step] { return step(JobPhase::kReading); }};
  TRIMTAB_RETURN_IF_ERROR(step(JobPhase::kReading));
  if (admit) {
    TRIMTAB_ASSIGN_OR_RETURN(const int64_t weights, PlanWeights(plan));
    TRIMTAB_RETURN_IF_ERROR(CheckMemory(weights + (plan.kv_cache_mib << 20)));
  }
  TRIMTAB_ASSIGN_OR_RETURN(std::shared_ptr<const LoadedModel> loaded, LoadModel(plan.id, plan.path, options));
  malloc_trim(0);  // matrices as they were read, between small pieces that stay
  TRIMTAB_RETURN_IF_ERROR(step(JobPhase::kStarting));
  // Now that the weights are there.
  if (admit) TRIMTAB_RETURN_IF_ERROR(CheckMemory(plan.kv_cache_mib << 20));
  TRIMTAB_ASSIGN_OR_RETURN(std::shared_ptr<Hosted> hosted, Make(plan, std::move(loaded)));
  if (const absl::Status published = parts_.publisher.PublishAll(ModelName(plan.id)); !published.ok()) {
    Discard(std::move(hosted));
    return published;
  }
  LogInfo("model loaded", {{"model", plan.id},
                           {"fingerprint", hosted->loaded->fingerprint},
                           {"seconds", absl::StrFormat("%.2f", absl::ToDoubleSeconds(parts_.clock.Now() - start))}});
  {
    absl::MutexLock lock(&mutex_);
    hosted_[plan.id] = hosted;
  }
  Serve(hosted);
  return hosted->served->Describe();
}

void ModelHost::Fail(const std::string& id, const std::string& relative_path, const absl::Status& error) {
  v1::Model model = DescribePlan(id, relative_path, v1::Model::STATE_FAILED);
  *model.mutable_error() = ToRpcStatus(error);
  directory_.Announce(std::move(model));
}

void ModelHost::BeginUnload(const std::string& id) {
  const std::shared_ptr<Hosted> hosted = Find(id);
  v1::Model model = DescribePlan(id, "", v1::Model::STATE_UNLOADING);
  if (hosted != nullptr) {
    model = hosted->served->Describe();
    model.set_state(v1::Model::STATE_UNLOADING);
  }
  directory_.Announce(std::move(model));
  parts_.on_health(id, false);
}

bool ModelHost::Resume(const std::string& id) {
  const std::shared_ptr<Hosted> hosted = Find(id);
  if (hosted == nullptr) return false;
  Serve(hosted);
  return true;
}

void ModelHost::Drain(const std::string& id, absl::Time deadline) {
  const std::shared_ptr<Hosted> hosted = Find(id);
  if (hosted == nullptr) return;
  v1::Model model;
  model.set_name(ModelName(id));
  model.set_state(v1::Model::STATE_UNLOADING);
  hosted->engine->Drain(deadline, ModelNotReadyError(model));
}

std::shared_ptr<absl::Notification> ModelHost::Release(const std::string& id) {
  std::shared_ptr<Hosted> hosted;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = hosted_.find(id);
    if (found == hosted_.end()) return nullptr;
    hosted = std::move(found->second);
    hosted_.erase(found);
    released_[id] = hosted->gone;
  }
  parts_.metrics.RemoveModel(id);
  return hosted->gone;
}

void ModelHost::DrainAll(absl::Time deadline) {
  std::vector<std::thread> drains;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, hosted] : hosted_) {
      drains.emplace_back([hosted = hosted, deadline] { hosted->engine->Drain(deadline); });
    }
  }
  for (std::thread& drain : drains) drain.join();
}

}  // namespace trimtab
