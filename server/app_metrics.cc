#include "server/app_metrics.h"

#include <optional>
#include <vector>

#include "absl/strings/str_join.h"
#include "server/base/resource_name.h"

namespace trimtab {
namespace {

// The objectives of a report, as one label: "calm" or "calm+brief".
std::string Label(const std::string& model, const google::protobuf::RepeatedPtrField<v1::SteeringSelection>& steering) {
  std::vector<std::string> ids;
  for (const v1::SteeringSelection& selection : steering) {
    const auto reference = ParseObjectiveReference(model, selection.objective());
    if (reference) ids.push_back(reference->objective.objective);
  }
  return absl::StrJoin(ids, "+");
}

}  // namespace

AppMetrics::AppMetrics(const ServerConfig& config, const VectorStore& vectors, const Clock& clock)
    : vectors_(vectors),
      metrics_({.version = config.version,
                .revision = config.revision,
                .max_vectors = static_cast<int>(config.metrics_objectives)},
               clock) {}

std::shared_ptr<ModelMetrics> AppMetrics::AddModel(const LoadedModel& model, const EngineConfig& engine,
                                                   int64_t context_length) {
  const int64_t element = static_cast<int64_t>(c10::elementSize(model.model->dtype()));
  const int64_t block_bytes = engine.block_size * model.model->spec().kv_bytes_per_token(element);
  std::shared_ptr<ModelMetrics> metrics = metrics_.AddModel({.id = model.id,
                                                             .sha256 = model.fingerprint,
                                                             .quantization = model.quantization,
                                                             .max_running_requests = engine.max_running_requests,
                                                             .block_size = engine.block_size,
                                                             .num_blocks = engine.kv_cache_bytes / block_bytes,
                                                             .context_length = context_length});
  absl::MutexLock lock(&mutex_);
  models_[model.id] = {.metrics = metrics, .fingerprint = model.fingerprint};
  return metrics;
}

void AppMetrics::RemoveModel(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  models_.erase(id);
}

std::optional<AppMetrics::Model> AppMetrics::Find(const std::string& id) const {
  absl::MutexLock lock(&mutex_);
  const auto found = models_.find(id);
  if (found == models_.end()) return std::nullopt;
  return found->second;
}

void AppMetrics::OnSteered(const std::string& objective, int64_t tokens) {
  const std::optional<ObjectiveId> id = ParseObjectiveName(objective);
  const std::optional<Model> model = id ? Find(id->model) : std::nullopt;
  if (model) model->metrics->OnVectorUse(id->objective, tokens);
}

VectorCounts AppMetrics::Count(const std::string& model, const std::string& fingerprint) const {
  VectorCounts counts;
  for (const std::shared_ptr<const ServedObjective>& objective : vectors_.List()) {
    const std::optional<ObjectiveId> id = ParseObjectiveName(objective->name);
    if (!id || id->model != model) continue;
    const auto active = objective->revisions.find(objective->active_revision);
    if (objective->state == ServedObjective::State::kCreating) {
      ++counts.pending;
    } else if (objective->state != ServedObjective::State::kActive || active == objective->revisions.end()) {
      ++counts.disabled;
    } else if (active->second->spec().model_fingerprint != fingerprint) {
      ++counts.incompatible;
    } else {
      ++counts.ready;
    }
  }
  return counts;
}

void AppMetrics::OnPublished(const std::string& name, const ServedObjective* objective, double effect) {
  const std::optional<ObjectiveId> id = ParseObjectiveName(name);
  const std::optional<Model> model = id ? Find(id->model) : std::nullopt;
  if (!model) return;
  const SteeringVector* active = nullptr;
  if (objective != nullptr) {
    const auto found = objective->revisions.find(objective->active_revision);
    if (found != objective->revisions.end()) active = found->second.get();
  }
  if (active == nullptr) {
    model->metrics->RemoveObjective(id->objective);
  } else {
    std::vector<int64_t> layers;
    for (const LayerDirection& direction : active->spec().layers) layers.push_back(direction.layer);
    model->metrics->SetObjective(id->objective, layers, effect);
  }
  model->metrics->SetVectorCounts(Count(id->model, model->fingerprint));
}

void AppMetrics::OnDrift(const v1::DriftReport& report) {
  const std::optional<DriftReportId> id = ParseDriftReportName(report.name());
  const std::optional<Model> model = id ? Find(id->model) : std::nullopt;
  if (!model) return;
  model->metrics->OnDriftReport(Label(id->model, report.steering()), report.suite(),
                                {.baseline_accuracy = report.baseline_accuracy(),
                                 .accuracy = report.accuracy(),
                                 .accuracy_delta = report.accuracy_delta(),
                                 .ci95_low = report.ci95_low(),
                                 .ci95_high = report.ci95_high(),
                                 .samples = report.items(),
                                 .mean_kl_text = report.mean_kl_text(),
                                 .cross_entropy_delta = report.cross_entropy_delta()});
}

void AppMetrics::OnDriftError(const v1::EvaluateDriftRequest& request) {
  const std::optional<std::string> id = ParseModelName(request.parent());
  const std::optional<Model> model = id ? Find(*id) : std::nullopt;
  if (model) model->metrics->OnDriftError(Label(*id, request.steering()), request.suite());
}

}  // namespace trimtab
