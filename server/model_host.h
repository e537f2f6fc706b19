// Where models live: makes the weights, the engine and the ServedModel of a path, lists them in the directory that
// calls and jobs look in, and takes them down again while calls run. Made by the composition root.
#ifndef TRIMTAB_SERVER_MODEL_HOST_H_
#define TRIMTAB_SERVER_MODEL_HOST_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "models/loaded_model.h"
#include "server/app_metrics.h"
#include "server/base/clock.h"
#include "server/base/job_context.h"
#include "server/config.h"
#include "server/engine/engine.h"
#include "server/jobs/task_thread.h"
#include "server/objective_publisher.h"
#include "server/registry/registry.h"
#include "server/rpc/model_admin.h"
#include "server/rpc/model_directory.h"
#include "trimtab/v1/model.pb.h"

namespace trimtab {

// How one model is to be loaded.
struct ModelPlan {
  std::string id;
  std::string path;           // absolute, or as the operator wrote it
  std::string relative_path;  // below --model_root; empty for models of --model
  std::string precision;      // as in ServerConfig
  int64_t kv_cache_mib = 0;
};

// Every model has an engine, a thread team and a key-value cache of its own. What a call or a job has found of a model
// (ServedModel, LoadedModel) keeps all of it alive; the last one to let go never destroys it itself, which would stop
// an engine from its own thread, but leaves that to a thread of the host. Thread-safe; Load blocks for as long as
// reading takes. Must outlive all who have found a model.
class ModelHost final : public ModelAdmin {
 public:
  struct Parts {
    const ServerConfig& config;
    const Clock& clock;
    AppMetrics& metrics;
    ObjectivePublisher& publisher;
    std::vector<std::string> drift_suites;
    std::function<int64_t()> available_memory;  // bytes
    // A model begins to serve or ceases to: for health checks. May be called from any thread.
    std::function<void(const std::string& id, bool serving)> on_health;
  };
  explicit ModelHost(Parts parts);
  ~ModelHost() override;

  const ModelDirectory& directory() const { return directory_; }
  // The weights of a model that takes requests, for attribution. MODEL_NOT_FOUND, MODEL_NOT_READY.
  absl::StatusOr<std::shared_ptr<const LoadedModel>> FindLoaded(std::string_view id) const ABSL_LOCKS_EXCLUDED(mutex_);
  // No engine has interactive work. Cheap; for DeviceGate.
  bool idle() const ABSL_LOCKS_EXCLUDED(mutex_);

  // What a model of --model needs, of a client's request, and of a model that is remembered. The latter two look at the
  // disk: FIELD_INVALID, LOADING_DISABLED.
  ModelPlan PlanConfigured(const ModelSource& source) const;
  absl::StatusOr<ModelPlan> PlanRequested(const v1::LoadModelRequest& request) const;
  absl::StatusOr<ModelPlan> PlanRemembered(const ModelRecord& record) const;

  // ModelAdmin.
  absl::StatusOr<v1::Model> CheckLoad(const v1::LoadModelRequest& request) override;
  void BeginLoad(const v1::Model& model) override { directory_.Announce(model); }
  absl::Status CheckUnload(const std::string& id) override;
  void BeginUnload(const std::string& id) override ABSL_LOCKS_EXCLUDED(mutex_);

  // OK when a load of this id may go on: nothing has it, or a load or a failure. MODEL_EXISTS, MODEL_NOT_READY
  // (unloading, or unloaded but still held by a call).
  absl::Status CheckFree(const std::string& id) const ABSL_LOCKS_EXCLUDED(mutex_);
  // DEVICE_OUT_OF_MEMORY unless `bytes` and some room for working memory are there.
  absl::Status CheckMemory(int64_t bytes) const;
  // Reads the weights, starts the engine, publishes the model's objectives, then serves it. `step` is told before each
  // part, while reading several times a second, and may end it with an error. With `admit`, DEVICE_OUT_OF_MEMORY when
  // it does not fit. Other errors: those of LoadModel and of Engine::Create. One call at a time.
  absl::StatusOr<v1::Model> Load(const ModelPlan& plan, bool admit, absl::FunctionRef<absl::Status(JobPhase)> step)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // It stays listed, in STATE_FAILED.
  void Fail(const std::string& id, const std::string& relative_path, const absl::Status& error);
  // It is listed no more. Not for a model that is held here.
  void Forget(const std::string& id) { directory_.Remove(id); }

  // Taking a model down is Drain, then Release, then Forget. All three do nothing for one that is not held here.
  // Running calls end, or are aborted at `deadline`; new ones are refused. Blocks.
  void Drain(const std::string& id, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  // Lets go of the model. Notified when nobody else holds it either and its memory is free; null for one not held.
  std::shared_ptr<absl::Notification> Release(const std::string& id) ABSL_LOCKS_EXCLUDED(mutex_);
  // Serves a model again that BeginUnload has refused calls for; false when it is not held here.
  bool Resume(const std::string& id) ABSL_LOCKS_EXCLUDED(mutex_);

  // At shutdown: all models at once.
  void DrainAll(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Hosted;

  EngineConfig EngineConfigOf(const ModelPlan& plan) const;
  absl::StatusOr<std::shared_ptr<Hosted>> Make(const ModelPlan& plan, std::shared_ptr<const LoadedModel> loaded);
  // Of a model that was never served: waits until it is gone.
  void Discard(std::shared_ptr<Hosted> hosted);
  void Serve(const std::shared_ptr<Hosted>& hosted);
  std::shared_ptr<Hosted> Find(std::string_view id) const ABSL_LOCKS_EXCLUDED(mutex_);

  const Parts parts_;
  TaskThread reaper_;  // destroys models
  ModelDirectory directory_;
  mutable absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<Hosted>, std::less<>> hosted_ ABSL_GUARDED_BY(mutex_);  // by id
  // Of models that were released last, by id: two of one id would write the same metrics.
  std::map<std::string, std::shared_ptr<absl::Notification>, std::less<>> released_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_MODEL_HOST_H_
