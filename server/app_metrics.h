// From what the rooms of the server tell to what server/metrics exports: which model an objective belongs to, how many
// objectives are in which state, what a drift report says. Made by the composition root. Any thread.
#ifndef TRIMTAB_SERVER_APP_METRICS_H_
#define TRIMTAB_SERVER_APP_METRICS_H_

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "models/loaded_model.h"
#include "server/base/clock.h"
#include "server/config.h"
#include "server/engine/engine.h"
#include "server/metrics/metrics.h"
#include "server/rpc/call_environment.h"
#include "steering/vector_store.h"
#include "trimtab/v1/drift.pb.h"

namespace trimtab {

class AppMetrics final : public CallMetrics {
 public:
  // `vectors` and `clock` must outlive it.
  AppMetrics(const ServerConfig& config, const VectorStore& vectors, const Clock& clock);

  Metrics& metrics() { return metrics_; }
  // Before the model's engine is made, which must let the metrics go before a model of the same id is added again.
  std::shared_ptr<ModelMetrics> AddModel(const LoadedModel& model, const EngineConfig& engine, int64_t context_length);
  // Nothing more is told of the model.
  void RemoveModel(const std::string& id) ABSL_LOCKS_EXCLUDED(mutex_);

  void OnRejected(const absl::Status& error) override { metrics_.OnRequestRejected(error); }
  void AddQueuedTokens(int64_t tokens) override { metrics_.AddStreamQueueDepth(tokens); }
  void OnSteered(const std::string& objective, int64_t tokens) override;

  // As ObjectivePublisher::Observer.
  void OnPublished(const std::string& name, const ServedObjective* objective, double effect);
  void OnDrift(const v1::DriftReport& report);
  void OnDriftError(const v1::EvaluateDriftRequest& request);

 private:
  struct Model {
    std::shared_ptr<ModelMetrics> metrics;
    std::string fingerprint;
  };

  // Nullopt for a model that is not loaded.
  std::optional<Model> Find(const std::string& id) const ABSL_LOCKS_EXCLUDED(mutex_);
  VectorCounts Count(const std::string& model, const std::string& fingerprint) const;

  const VectorStore& vectors_;
  Metrics metrics_;
  mutable absl::Mutex mutex_;
  std::map<std::string, Model> models_ ABSL_GUARDED_BY(mutex_);  // by id
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_APP_METRICS_H_
