// Prometheus: owns every family, and the HTTP server that exports them on a port of its own. Made by the composition
// root and passed to whoever has something to tell, as the small interface that it knows (EngineMetrics, JobMetrics,
// RpcMetrics, RegistryObserver).
#ifndef TRIMTAB_SERVER_METRICS_METRICS_H_
#define TRIMTAB_SERVER_METRICS_METRICS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/jobs/job_manager.h"
#include "server/metrics/grpc_metrics.h"
#include "server/metrics/model_metrics.h"
#include "server/registry/registry.h"

namespace trimtab {

struct MetricsConfig {
  std::string version, revision;  // of the build
  std::string registry_backend = "sqlite";
  int max_vectors = 64;                            // values of the label `vector`, most recently used first
  absl::Duration vector_idle = absl::Minutes(15);  // unused for so long, a vector may lose its place to another
};

// Thread-safe. `clock` must outlive it; it must outlive everyone that it was passed to.
class Metrics final : public JobMetrics, public RegistryObserver {
 public:
  Metrics(const MetricsConfig& config, const Clock& clock);
  ~Metrics() override;

  // The metrics of a model that was loaded. Their series end when the last holder lets them go, which must be before
  // this object does and before a model of the same id is added.
  std::shared_ptr<ModelMetrics> AddModel(const MeasuredModel& model);
  GrpcMetrics& grpc() { return grpc_; }

  void OnJobCounts(std::string_view kind, int64_t queued, int64_t running) override;
  void OnJobEnd(std::string_view kind, std::string_view result, absl::Duration queued, absl::Duration run) override;
  void OnJobProgress(std::string_view kind, double fraction, absl::Duration oldest_running_age) override;

  void OnChange(std::string_view action) override;
  void OnStorageFailure(std::string_view operation, const absl::Status& error) override;
  // The registry's revision when it was opened; OnChange counts on from there.
  void SetRegistryRevision(int64_t revision);

  // A request to generate or score was refused with `error` before it ran; the reason is read from its detail.
  void OnRequestRejected(const absl::Status& error);
  // Tokens that joined (or left: negative) the queues between engine and streams.
  void AddStreamQueueDepth(int64_t tokens);
  void SetDraining(bool draining);

  // Serves http://ADDRESS/metrics and returns its port. `address` is "host:port"; port 0 takes a free one. UNAVAILABLE
  // when it cannot be bound. Once.
  absl::StatusOr<int> Expose(const std::string& address);
  // What a scrape would return.
  std::string Scrape() const;

 private:
  struct JobSeries {
    prometheus::Gauge *queued, *running, *oldest_age, *progress;
    prometheus::Histogram *queue_seconds, *run_seconds;
    std::map<std::string, prometheus::Counter*, std::less<>> finished;  // by result
    absl::Time oldest_start = absl::InfiniteFuture();
  };
  // Brings what is computed at scrape time up to date, then collects.
  class Collector;

  JobSeries& Job(std::string_view kind) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Refresh();

  const MetricsConfig config_;
  const Clock& clock_;
  prometheus::Registry registry_;
  const Families families_;
  GrpcMetrics grpc_;
  std::map<std::string, prometheus::Counter*, std::less<>> rejected_;                                // by reason, const
  std::map<std::string, std::pair<prometheus::Counter*, prometheus::Counter*>, std::less<>> audit_;  // by action, const
  prometheus::Counter &read_errors_, &write_errors_, &audit_failures_;
  prometheus::Gauge &revision_, &draining_, &queue_depth_;

  absl::Mutex mutex_;
  std::map<std::string, JobSeries, std::less<>> jobs_ ABSL_GUARDED_BY(mutex_);  // by kind

  const std::shared_ptr<Collector> collector_;
  class Server;
  std::unique_ptr<Server> server_;  // stops before what it reads goes
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_METRICS_METRICS_H_
