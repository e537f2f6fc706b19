#include "server/metrics/metrics.h"

#include <prometheus/exposer.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <exception>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/metrics/process_collector.h"

namespace trimtab {
namespace {

using Labels = std::map<std::string, std::string>;

// Values of the label `reason` of trimtab_requests_rejected_total, and what is counted under them.
constexpr struct {
  std::string_view error;
  const char* label;
} kRejections[] = {
    {kQueueFull, "queue_full"},
    {kQuotaExceeded, "quota"},
    {kShuttingDown, "draining"},
    {kFieldInvalid, "invalid"},
    {kPromptTooLong, "too_large"},
    {kKvCacheTooSmall, "too_large"},
    {kObjectiveNotFound, "unknown_vector"},
    {kRevisionNotFound, "unknown_vector"},
    {kObjectiveNotReady, "unusable_vector"},
    {kFingerprintMismatch, "unusable_vector"},
    {kStrengthOutOfRange, "invalid"},
    {kEngineUnhealthy, "unhealthy"},
    {kModelNotFound, "unknown_model"},
    {kModelNotReady, "unknown_model"},
};
constexpr char kOtherRejection[] = "other";

bool IsRead(std::string_view operation) {
  return operation.starts_with("get_") || operation.starts_with("list_") || operation.starts_with("load_") ||
         operation == "unfinished_jobs";
}

}  // namespace

class Metrics::Collector final : public prometheus::Collectable {
 public:
  explicit Collector(Metrics* metrics) : metrics_(metrics) {}
  std::vector<prometheus::MetricFamily> Collect() const override {
    metrics_->Refresh();
    std::vector<prometheus::MetricFamily> families = metrics_->registry_.Collect();
    std::vector<prometheus::MetricFamily> process = process_.Collect();
    std::move(process.begin(), process.end(), std::back_inserter(families));
    return families;
  }

 private:
  Metrics* const metrics_;
  const ProcessCollector process_;
};

class Metrics::Server {
 public:
  explicit Server(const std::string& address)
      : exposer_(std::vector<std::string>{"listening_ports", address, "num_threads", "2"}) {}
  prometheus::Exposer& exposer() { return exposer_; }

 private:
  prometheus::Exposer exposer_;
};

Metrics::Metrics(const MetricsConfig& config, const Clock& clock)
    : config_(config),
      clock_(clock),
      families_(registry_),
      grpc_(families_),
      read_errors_(families_.registry_errors.Add({{"backend", config.registry_backend}, {"op", "read"}})),
      write_errors_(families_.registry_errors.Add({{"backend", config.registry_backend}, {"op", "write"}})),
      audit_failures_(families_.audit_write_failures.Add({})),
      revision_(families_.registry_revision.Add({{"backend", config.registry_backend}})),
      draining_(families_.draining.Add({})),
      queue_depth_(families_.stream_queue_depth.Add({})),
      collector_(std::make_shared<Collector>(this)) {
  for (const auto& rejection : kRejections) {
    rejected_[rejection.label] = &families_.requests_rejected.Add({{"reason", rejection.label}});
  }
  rejected_[kOtherRejection] = &families_.requests_rejected.Add({{"reason", kOtherRejection}});
  for (const std::string_view action : kRegistryActions) {
    const std::string label(action);
    audit_[label] = {&families_.audit_events.Add({{"action", label}, {"result", "succeeded"}}),
                     &families_.audit_events.Add({{"action", label}, {"result", "failed"}})};
  }
  families_.build_info.Add({{"version", config.version}, {"revision", config.revision}}).Set(1);
  absl::MutexLock lock(&mutex_);
  for (const std::string_view kind : {"fit", "refit", "curve", "drift", "load", "unload"}) Job(kind);
}

Metrics::~Metrics() = default;

std::shared_ptr<ModelMetrics> Metrics::AddModel(const MeasuredModel& model) {
  return std::make_shared<ModelMetrics>(families_, clock_, model, config_.max_vectors, config_.vector_idle);
}

Metrics::JobSeries& Metrics::Job(std::string_view kind) {
  if (const auto found = jobs_.find(kind); found != jobs_.end()) return found->second;
  const std::string label(kind);
  const Labels labels = {{"kind", label}};
  JobSeries series{.queued = &families_.jobs.Add({{"kind", label}, {"state", "queued"}}),
                   .running = &families_.jobs.Add({{"kind", label}, {"state", "running"}}),
                   .oldest_age = &families_.job_oldest_running_age.Add(labels),
                   .progress = &families_.job_progress.Add(labels),
                   .queue_seconds = &families_.job_queue.Add(labels, JobBuckets()),
                   .run_seconds = &families_.job_run.Add(labels, JobBuckets())};
  for (const char* result : {"succeeded", "failed", "cancelled"}) {
    series.finished[result] = &families_.jobs_finished.Add({{"kind", label}, {"result", result}});
  }
  return jobs_.emplace(label, std::move(series)).first->second;
}

void Metrics::OnJobCounts(std::string_view kind, int64_t queued, int64_t running) {
  absl::MutexLock lock(&mutex_);
  JobSeries& series = Job(kind);
  series.queued->Set(static_cast<double>(queued));
  series.running->Set(static_cast<double>(running));
  if (running > 0) {
    series.oldest_start = std::min(series.oldest_start, clock_.Now());
    return;
  }
  series.oldest_start = absl::InfiniteFuture();
  series.progress->Set(0);
}

void Metrics::OnJobEnd(std::string_view kind, std::string_view result, absl::Duration queued, absl::Duration run) {
  absl::MutexLock lock(&mutex_);
  JobSeries& series = Job(kind);
  if (const auto found = series.finished.find(result); found != series.finished.end()) found->second->Increment();
  series.queue_seconds->Observe(absl::ToDoubleSeconds(queued));
  series.run_seconds->Observe(absl::ToDoubleSeconds(run));
}

void Metrics::OnJobProgress(std::string_view kind, double fraction, absl::Duration oldest_running_age) {
  absl::MutexLock lock(&mutex_);
  JobSeries& series = Job(kind);
  series.progress->Set(fraction);
  // Kept as a start, so that the age of a job that reports nothing more still grows.
  series.oldest_start = clock_.Now() - oldest_running_age;
}

void Metrics::OnChange(std::string_view action) {
  revision_.Increment();
  if (const auto found = audit_.find(action); found != audit_.end()) found->second.first->Increment();
}

void Metrics::OnStorageFailure(std::string_view operation, const absl::Status&) {
  (IsRead(operation) ? read_errors_ : write_errors_).Increment();
  const auto found = audit_.find(operation);
  if (found == audit_.end()) return;
  found->second.second->Increment();
  audit_failures_.Increment();
}

void Metrics::SetRegistryRevision(int64_t revision) { revision_.Set(static_cast<double>(revision)); }

void Metrics::OnRequestRejected(const absl::Status& error) {
  const std::string reason = GetErrorDetail(error).reason;
  const auto* known = std::find_if(std::begin(kRejections), std::end(kRejections),
                                   [&](const auto& rejection) { return rejection.error == reason; });
  rejected_.find(known == std::end(kRejections) ? kOtherRejection : known->label)->second->Increment();
}

void Metrics::AddStreamQueueDepth(int64_t tokens) { queue_depth_.Increment(static_cast<double>(tokens)); }
void Metrics::SetDraining(bool draining) { draining_.Set(draining ? 1 : 0); }

void Metrics::Refresh() {
  absl::MutexLock lock(&mutex_);
  for (auto& [kind, series] : jobs_) {
    const bool running = series.oldest_start != absl::InfiniteFuture();
    series.oldest_age->Set(running ? absl::ToDoubleSeconds(clock_.Now() - series.oldest_start) : 0);
  }
}

absl::StatusOr<int> Metrics::Expose(const std::string& address) {
  if (server_ != nullptr) return absl::FailedPreconditionError("metrics are exposed already");
  try {
    server_ = std::make_unique<Server>(address);
  } catch (const std::exception& exception) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on ", address, ": ", exception.what(), "; choose another address"));
  }
  server_->exposer().RegisterCollectable(collector_);
  return server_->exposer().GetListeningPorts().front();
}

std::string Metrics::Scrape() const { return prometheus::TextSerializer().Serialize(collector_->Collect()); }

}  // namespace trimtab
