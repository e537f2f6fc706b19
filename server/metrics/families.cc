#include "server/metrics/families.h"

namespace trimtab {
namespace {

using prometheus::Registry;

Families::Counters& Counter(Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}
Families::Gauges& Gauge(Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}
Families::Histograms& Histogram(Registry& registry, const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

}  // namespace

Families::Families(Registry& registry)
    : requests_running(Gauge(registry, "trimtab_requests_running", "Requests in the running batch.")),
      requests_waiting(Gauge(registry, "trimtab_requests_waiting", "Requests waiting for a place in the batch.")),
      max_running_requests(Gauge(registry, "trimtab_max_running_requests", "Most requests that the batch can hold.")),
      requests_finished(Counter(registry, "trimtab_requests_finished_total", "Requests that ended, by why.")),
      requests_rejected(
          Counter(registry, "trimtab_requests_rejected_total", "Requests refused before they ran, by why.")),
      prompt_tokens(
          Counter(registry, "trimtab_prompt_tokens_total", "Prompt tokens, computed or taken from the prefix cache.")),
      generation_tokens(Counter(registry, "trimtab_generation_tokens_total", "Tokens generated.")),
      time_to_first_token(Histogram(registry, "trimtab_time_to_first_token_seconds",
                                    "Time from a request's arrival to its first token.")),
      inter_token_latency(
          Histogram(registry, "trimtab_inter_token_latency_seconds", "Time between two tokens of a request.")),
      time_per_output_token(Histogram(registry, "trimtab_request_time_per_output_token_seconds",
                                      "Mean time per token after a request's first.")),
      request_duration(
          Histogram(registry, "trimtab_request_duration_seconds", "Time from a request's arrival to its end.")),
      request_queue(
          Histogram(registry, "trimtab_request_queue_seconds", "Time from a request's arrival to its first step.")),
      request_prefill(Histogram(registry, "trimtab_request_prefill_seconds",
                                "Time from a request's first step to its first token.")),
      request_decode(
          Histogram(registry, "trimtab_request_decode_seconds", "Time from a request's first token to its end.")),
      request_prompt_tokens(Histogram(registry, "trimtab_request_prompt_tokens", "Prompt tokens of a request.")),
      request_generation_tokens(
          Histogram(registry, "trimtab_request_generation_tokens", "Tokens generated for a request.")),
      kv_cache_usage(Gauge(registry, "trimtab_kv_cache_usage_ratio", "Share of KV cache blocks in use, 0 to 1.")),
      cache_config(Gauge(registry, "trimtab_cache_config_info", "Shape of the KV cache; always 1.")),
      prefix_cache_queries(
          Counter(registry, "trimtab_prefix_cache_queries_total", "Tokens looked up in the prefix cache.")),
      prefix_cache_hits(Counter(registry, "trimtab_prefix_cache_hits_total", "Tokens found in the prefix cache.")),
      preemptions(Counter(registry, "trimtab_preemptions_total",
                          "Requests that lost their place in the KV cache and were computed again.")),
      step_batch_sequences(Histogram(registry, "trimtab_step_batch_sequences", "Sequences in a step.")),
      step_seconds(Histogram(registry, "trimtab_step_seconds", "Time of a step.")),
      nonfinite(Counter(registry, "trimtab_nonfinite_total", "Rows with NaN or infinity; their requests fail.")),
      stream_stalled(
          Counter(registry, "trimtab_stream_stalled_total", "Streams broken off because their reader took nothing.")),
      stream_queue_depth(Gauge(registry, "trimtab_stream_queue_depth", "Tokens waiting to be written to streams.")),
      steering_apply_seconds(Counter(registry, "trimtab_steering_apply_seconds_total",
                                     "Time within steps spent on applying steering vectors.")),
      steering_upload_bytes(
          Counter(registry, "trimtab_steering_uploads_bytes_total", "Bytes of steering vectors copied to the device.")),
      steered_sequences(
          Gauge(registry, "trimtab_steered_sequences_running", "Sequences of the last step that were steered.")),
      vectors(Gauge(registry, "trimtab_vectors", "Objectives, by whether their vectors can be used.")),
      vector_info(Gauge(registry, "trimtab_vector_info", "Objectives and the layers that they steer; always 1.")),
      objective_effect(Gauge(registry, "trimtab_objective_effect",
                             "Change of the preference margin on held-out pairs in nats per token.")),
      vector_requests(Counter(registry, "trimtab_vector_requests_total", "Requests steered by an objective.")),
      vector_tokens(Counter(registry, "trimtab_vector_tokens_total", "Token positions steered by an objective.")),
      vector_cache_bytes(
          Gauge(registry, "trimtab_vector_cache_bytes", "Bytes of steering vectors held on the device.")),
      vector_cache_hits(
          Counter(registry, "trimtab_vector_cache_hits_total", "Steering vectors that were on the device already.")),
      vector_cache_misses(
          Counter(registry, "trimtab_vector_cache_misses_total", "Steering vectors that had to be copied.")),
      vector_cache_evictions(
          Counter(registry, "trimtab_vector_cache_evictions_total", "Steering vectors dropped from the device.")),
      drift_accuracy(
          Gauge(registry, "trimtab_drift_accuracy_ratio", "Accuracy in the last completed drift run, 0 to 1.")),
      drift_accuracy_delta(Gauge(registry, "trimtab_drift_accuracy_delta",
                                 "Steered minus baseline accuracy in the last completed drift run.")),
      drift_accuracy_delta_ci95(Gauge(registry, "trimtab_drift_accuracy_delta_ci95",
                                      "Half width of the paired 95 % interval of the accuracy delta.")),
      drift_samples(Gauge(registry, "trimtab_drift_samples", "Questions of the last completed drift run.")),
      drift_mean_kl(Gauge(registry, "trimtab_drift_mean_kl_nats",
                          "Mean divergence per token of neutral text in the last completed drift run.")),
      drift_perplexity_ratio(Gauge(registry, "trimtab_drift_perplexity_ratio",
                                   "Steered by baseline perplexity of neutral text in the last drift run.")),
      drift_last_run(Gauge(registry, "trimtab_drift_last_run_timestamp_seconds",
                           "When the last completed drift run ended, Unix time.")),
      drift_runs(Counter(registry, "trimtab_drift_runs_total", "Drift runs, by result.")),
      jobs(Gauge(registry, "trimtab_jobs", "Jobs that have not ended, by state.")),
      jobs_finished(Counter(registry, "trimtab_jobs_finished_total", "Jobs that ended, by result.")),
      job_queue(Histogram(registry, "trimtab_job_queue_seconds", "Time from a job's creation to its last start.")),
      job_run(Histogram(registry, "trimtab_job_run_seconds", "Time from a job's last start to its end.")),
      job_oldest_running_age(Gauge(registry, "trimtab_job_oldest_running_age_seconds",
                                   "Age of the job that has been running longest; 0 when none runs.")),
      job_progress(
          Gauge(registry, "trimtab_job_progress_ratio", "Progress of the running job that reported last, 0 to 1.")),
      registry_revision(Gauge(registry, "trimtab_registry_revision", "Changes that the registry has seen.")),
      registry_errors(Counter(registry, "trimtab_registry_errors_total", "Failures of the registry's storage.")),
      audit_events(Counter(registry, "trimtab_audit_events_total", "Audited changes, by action and result.")),
      audit_write_failures(Counter(registry, "trimtab_audit_write_failures_total",
                                   "Audit entries, and with them their changes, that could not be written.")),
      grpc_started(Counter(registry, "grpc_server_started_total", "RPCs started on the server.")),
      grpc_handled(Counter(registry, "grpc_server_handled_total", "RPCs completed on the server, by code.")),
      grpc_received(Counter(registry, "grpc_server_msg_received_total", "Messages received on the server.")),
      grpc_sent(Counter(registry, "grpc_server_msg_sent_total", "Messages sent by the server.")),
      grpc_handling(Histogram(registry, "grpc_server_handling_seconds", "Time from an RPC's start to its end.")),
      draining(Gauge(registry, "trimtab_draining", "1 while the server finishes its work to shut down, else 0.")),
      build_info(Gauge(registry, "trimtab_build_info", "Version of the server; always 1.")),
      model_info(Gauge(registry, "trimtab_model_info", "The served model; always 1.")) {}

const std::vector<double>& FirstTokenBuckets() {
  static const auto& buckets =
      *new std::vector<double>{.001, .0025, .005, .01, .02, .04, .08, .1, .25, .5, .75, 1, 2.5, 5, 10, 20, 40, 80};
  return buckets;
}
const std::vector<double>& TokenGapBuckets() {
  static const auto& buckets =
      *new std::vector<double>{.001, .002, .004, .006, .008, .01, .015, .02, .03, .04, .06, .08, .1, .2, .5, 1, 2.5};
  return buckets;
}
const std::vector<double>& RequestBuckets() {
  static const auto& buckets =
      *new std::vector<double>{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 40, 80, 160, 640};
  return buckets;
}
const std::vector<double>& StepBuckets() {
  static const auto& buckets = *new std::vector<double>{.0005, .001, .002, .005, .01, .02, .04, .08, .1, .2, .5, 1, 2};
  return buckets;
}
const std::vector<double>& JobBuckets() {
  static const auto& buckets = *new std::vector<double>{1, 5, 15, 60, 300, 900, 3600, 14400};
  return buckets;
}
const std::vector<double>& BatchBuckets() {
  static const auto& buckets = *new std::vector<double>{1, 2, 4, 8, 16, 32, 64, 128, 256};
  return buckets;
}

std::vector<double> TokenCountBuckets(double context_length) {
  std::vector<double> buckets;
  for (double decade = 1;; decade *= 10) {
    for (const double step : {1.0, 2.0, 5.0}) {
      buckets.push_back(decade * step);
      if (buckets.back() >= context_length) return buckets;
    }
  }
}

}  // namespace trimtab
