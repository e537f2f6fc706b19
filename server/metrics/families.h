// Every Prometheus family that Trimtab exports, declared in one place with its help text; docs/metrics.md lists them
// with their labels and a test compares. Names have base units and no abbreviations; labels are enums or bounded
// (BoundedLabels), never ids of requests, prompts or users.
#ifndef TRIMTAB_SERVER_METRICS_FAMILIES_H_
#define TRIMTAB_SERVER_METRICS_FAMILIES_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <vector>

namespace trimtab {

// Const once made; the families themselves are thread-safe. `registry` must outlive it.
struct Families {
  using Counters = prometheus::Family<prometheus::Counter>;
  using Gauges = prometheus::Family<prometheus::Gauge>;
  using Histograms = prometheus::Family<prometheus::Histogram>;

  explicit Families(prometheus::Registry &registry);
  Families(const Families &) = delete;
  Families &operator=(const Families &) = delete;

  // Requests.
  Gauges &requests_running, &requests_waiting, &max_running_requests;
  Counters &requests_finished, &requests_rejected;
  Counters &prompt_tokens, &generation_tokens;
  Histograms &time_to_first_token, &inter_token_latency, &time_per_output_token;
  Histograms &request_duration, &request_queue, &request_prefill, &request_decode;
  Histograms &request_prompt_tokens, &request_generation_tokens;
  // Engine.
  Gauges &kv_cache_usage, &cache_config;
  Counters &prefix_cache_queries, &prefix_cache_hits, &preemptions;
  Histograms &step_batch_sequences, &step_seconds;
  Counters &nonfinite;
  Counters &stream_stalled;
  Gauges &stream_queue_depth;
  // Steering.
  Counters &steering_apply_seconds, &steering_upload_bytes;
  Gauges &steered_sequences;
  Gauges &vectors, &vector_info, &objective_effect;
  Counters &vector_requests, &vector_tokens;
  Gauges &vector_cache_bytes;
  Counters &vector_cache_hits, &vector_cache_misses, &vector_cache_evictions;
  // Drift.
  Gauges &drift_accuracy, &drift_accuracy_delta, &drift_accuracy_delta_ci95, &drift_samples;
  Gauges &drift_mean_kl, &drift_perplexity_ratio, &drift_last_run;
  Counters &drift_runs;
  // Jobs.
  Gauges &jobs;
  Counters &jobs_finished;
  Histograms &job_queue, &job_run;
  Gauges &job_oldest_running_age, &job_progress;
  // Registry and audit.
  Gauges &registry_revision;
  Counters &registry_errors, &audit_events, &audit_write_failures;
  // gRPC, under the names of go-grpc-middleware.
  Counters &grpc_started, &grpc_handled, &grpc_received, &grpc_sent;
  Histograms &grpc_handling;
  // Server.
  Gauges &draining, &build_info, &model_info;
};

// Upper bounds of histogram buckets.
const std::vector<double> &FirstTokenBuckets();  // seconds
const std::vector<double> &TokenGapBuckets();    // seconds
const std::vector<double> &RequestBuckets();     // seconds
const std::vector<double> &StepBuckets();        // seconds
const std::vector<double> &JobBuckets();         // seconds
const std::vector<double> &BatchBuckets();       // sequences
// Tokens: 1, 2, 5, 10, ... up to the first bound that is not below `context_length`.
std::vector<double> TokenCountBuckets(double context_length);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_METRICS_FAMILIES_H_
