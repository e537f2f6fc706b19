// What one model's engine, its objectives and its drift reports tell Prometheus. Made by Metrics::AddModel.
#ifndef TRIMTAB_SERVER_METRICS_MODEL_METRICS_H_
#define TRIMTAB_SERVER_METRICS_MODEL_METRICS_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/engine/engine_metrics.h"
#include "server/metrics/bounded_labels.h"
#include "server/metrics/families.h"

namespace trimtab {

// What is known about a model when it is loaded.
struct MeasuredModel {
  std::string id;  // the label `model`
  std::string sha256, quantization;
  int64_t max_running_requests = 0;
  int64_t block_size = 0, num_blocks = 0;  // of the KV cache
  int64_t context_length = 0;
};

// Numbers of one drift report.
struct DriftNumbers {
  double baseline_accuracy = 0, accuracy = 0;              // 0 to 1
  double accuracy_delta = 0, ci95_low = 0, ci95_high = 0;  // of the paired difference
  int64_t samples = 0;
  double mean_kl_text = 0;         // nats per token
  double cross_entropy_delta = 0;  // nats per token
};

// Objectives by state, for the gauge trimtab_vectors.
struct VectorCounts {
  int64_t ready = 0, pending = 0, disabled = 0, incompatible = 0;
};

// The methods of EngineMetrics are for one engine thread; the others are thread-safe. Objectives are named by their id;
// those beyond the limit of labels are counted under "__other__". All series end with the object: of one model there
// may be one at a time.
class ModelMetrics final : public EngineMetrics {
 public:
  // All must outlive it.
  ModelMetrics(const Families& families, const Clock& clock, const MeasuredModel& model, int max_vectors,
               absl::Duration vector_idle);
  ~ModelMetrics() override;

  void OnStep(const StepObservation& step) override;
  void OnQueues(const QueueObservation& queues) override;
  void OnInterTokenLatency(bool steered, absl::Duration gap) override;
  void OnRequestEnd(const RequestObservation& request) override;
  void OnPrefixLookup(int64_t queried_tokens, int64_t hit_tokens) override;
  void OnPreemption() override { preemptions_.Increment(); }
  void OnStall() override { stalled_.Increment(); }
  void OnBank(int64_t hits, int64_t misses, int64_t evictions, int64_t uploaded_bytes, int64_t bytes) override;

  // A request was steered by the objective at `tokens` positions.
  void OnVectorUse(const std::string& objective, int64_t tokens);
  // An objective's active revision steers `layers`; `effect`: margin gain on held-out pairs, nats per token.
  void SetObjective(const std::string& objective, const std::vector<int64_t>& layers, double effect);
  // Its series end.
  void RemoveObjective(const std::string& objective);
  void SetVectorCounts(const VectorCounts& counts);
  // A drift run ended. It failed when its whole interval lies below -0.01: the loss is beyond noise and more than a
  // point.
  void OnDriftReport(const std::string& objective, const std::string& suite, const DriftNumbers& numbers);
  void OnDriftError(const std::string& objective, const std::string& suite);

 private:
  using Counter = prometheus::Counter;
  using Gauge = prometheus::Gauge;
  using Histogram = prometheus::Histogram;
  using Labels = std::map<std::string, std::string>;

  // Adds a series that ends with this object.
  template <typename Metric, typename... Arguments>
  Metric& Own(prometheus::Family<Metric>& family, Arguments&&... arguments) {
    Metric& metric = family.Add(std::forward<Arguments>(arguments)...);
    owned_.push_back([&family, &metric] { family.Remove(&metric); });
    return metric;
  }

  // Series that are split by whether the request is steered.
  struct Steered {
    Steered(ModelMetrics& owner, bool steered);
    Counter& generation_tokens;
    Histogram &first_token, &token_gap, &time_per_token;
  };
  struct VectorSeries {
    Counter *requests = nullptr, *tokens = nullptr;
    Gauge *info = nullptr, *effect = nullptr;
  };
  struct DriftSeries {
    Gauge *baseline = nullptr, *steered = nullptr, *delta = nullptr, *ci95 = nullptr, *samples = nullptr, *kl = nullptr,
          *perplexity = nullptr, *last_run = nullptr;
    Counter *pass = nullptr, *fail = nullptr, *error = nullptr;
  };

  Steered& steered(bool steered) { return steered_[steered ? 1 : 0]; }
  // The objective's series (or those of "__other__"), made if need be.
  VectorSeries& UseVector(const std::string& objective) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  VectorSeries& AddVector(const std::string& label) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropVector(const std::string& label) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  DriftSeries& UseDrift(const std::string& objective, const std::string& suite) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropDrift(const std::string& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Families& families_;
  const Clock& clock_;
  const Labels model_;                        // {model: id}
  std::vector<std::function<void()>> owned_;  // removes the series below

  // Resolved once: the engine thread looks nothing up.
  Gauge &running_, &waiting_, &cache_usage_, &steered_sequences_;
  std::array<Counter*, 5> finished_;  // by finish reason
  Counter &computed_tokens_, &cached_tokens_, &prefix_queries_, &prefix_hits_, &preemptions_, &stalled_, &nonfinite_;
  Histogram &batch_, &prefill_step_, &decode_step_;
  Histogram &duration_, &queue_, &prefill_, &decode_, &prompt_length_, &generation_length_;
  Counter &apply_seconds_, &upload_bytes_, &bank_hits_, &bank_misses_, &bank_evictions_;
  Gauge& bank_bytes_;
  std::array<Steered, 2> steered_;
  std::array<int64_t, 4> bank_totals_{};  // engine thread: hits, misses, evictions, bytes counted so far
  Gauge &ready_, &pending_, &disabled_, &incompatible_;

  absl::Mutex mutex_;
  BoundedLabels vector_labels_ ABSL_GUARDED_BY(mutex_);
  BoundedLabels drift_labels_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, VectorSeries> vectors_ ABSL_GUARDED_BY(mutex_);  // by label
  std::map<std::string, DriftSeries> drift_ ABSL_GUARDED_BY(mutex_);     // by objective and suite
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_METRICS_MODEL_METRICS_H_
