#include "server/metrics/model_metrics.h"

#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace trimtab {
namespace {

using Labels = std::map<std::string, std::string>;

// Order of ModelMetrics::finished_.
constexpr const char* kFinishReasons[] = {"stop", "length", "cancelled", "deadline", "error"};
constexpr double kDriftTolerance = -0.01;

size_t ReasonIndex(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
    case FinishReason::kStopSequence:
      return 0;
    case FinishReason::kLength:
      return 1;
    case FinishReason::kCancelled:
      return 2;
    case FinishReason::kDeadline:
      return 3;
    case FinishReason::kError:
      break;
  }
  return 4;
}

Labels With(Labels labels, const std::string& name, const std::string& value) {
  labels[name] = value;
  return labels;
}

// Of a total that only grows to a counter.
void CountUpTo(prometheus::Counter& counter, int64_t& counted, int64_t total) {
  if (total <= counted) return;
  counter.Increment(static_cast<double>(total - counted));
  counted = total;
}

std::string DriftKey(const std::string& objective, const std::string& suite) { return objective + '\n' + suite; }

}  // namespace

ModelMetrics::Steered::Steered(ModelMetrics& owner, bool steered)
    : generation_tokens(
          owner.Own(owner.families_.generation_tokens, With(owner.model_, "steered", steered ? "true" : "false"))),
      first_token(owner.Own(owner.families_.time_to_first_token,
                            With(owner.model_, "steered", steered ? "true" : "false"), FirstTokenBuckets())),
      token_gap(owner.Own(owner.families_.inter_token_latency,
                          With(owner.model_, "steered", steered ? "true" : "false"), TokenGapBuckets())),
      time_per_token(owner.Own(owner.families_.time_per_output_token,
                               With(owner.model_, "steered", steered ? "true" : "false"), TokenGapBuckets())) {}

ModelMetrics::ModelMetrics(const Families& families, const Clock& clock, const MeasuredModel& model, int max_vectors,
                           absl::Duration vector_idle)
    : families_(families),
      clock_(clock),
      model_({{"model", model.id}}),
      running_(Own(families.requests_running, model_)),
      waiting_(Own(families.requests_waiting, model_)),
      cache_usage_(Own(families.kv_cache_usage, model_)),
      steered_sequences_(Own(families.steered_sequences, model_)),
      computed_tokens_(Own(families.prompt_tokens, With(model_, "source", "computed"))),
      cached_tokens_(Own(families.prompt_tokens, With(model_, "source", "prefix_cache"))),
      prefix_queries_(Own(families.prefix_cache_queries, model_)),
      prefix_hits_(Own(families.prefix_cache_hits, model_)),
      preemptions_(Own(families.preemptions, model_)),
      stalled_(Own(families.stream_stalled, model_)),
      nonfinite_(Own(families.nonfinite, model_)),
      batch_(Own(families.step_batch_sequences, model_, BatchBuckets())),
      prefill_step_(Own(families.step_seconds, With(model_, "phase", "prefill"), StepBuckets())),
      decode_step_(Own(families.step_seconds, With(model_, "phase", "decode"), StepBuckets())),
      duration_(Own(families.request_duration, model_, RequestBuckets())),
      queue_(Own(families.request_queue, model_, RequestBuckets())),
      prefill_(Own(families.request_prefill, model_, RequestBuckets())),
      decode_(Own(families.request_decode, model_, RequestBuckets())),
      prompt_length_(
          Own(families.request_prompt_tokens, model_, TokenCountBuckets(static_cast<double>(model.context_length)))),
      generation_length_(Own(families.request_generation_tokens, model_,
                             TokenCountBuckets(static_cast<double>(model.context_length)))),
      apply_seconds_(Own(families.steering_apply_seconds, model_)),
      upload_bytes_(Own(families.steering_upload_bytes, model_)),
      bank_hits_(Own(families.vector_cache_hits, model_)),
      bank_misses_(Own(families.vector_cache_misses, model_)),
      bank_evictions_(Own(families.vector_cache_evictions, model_)),
      bank_bytes_(Own(families.vector_cache_bytes, model_)),
      steered_({Steered(*this, false), Steered(*this, true)}),
      ready_(Own(families.vectors, With(model_, "state", "ready"))),
      pending_(Own(families.vectors, With(model_, "state", "pending"))),
      disabled_(Own(families.vectors, With(model_, "state", "disabled"))),
      incompatible_(Own(families.vectors, With(model_, "state", "incompatible"))),
      vector_labels_(max_vectors, vector_idle),
      // Runs are rare: the latest always have a place.
      drift_labels_(max_vectors, absl::ZeroDuration()) {
  for (size_t i = 0; i < finished_.size(); ++i) {
    finished_[i] = &Own(families.requests_finished, With(model_, "finish_reason", kFinishReasons[i]));
  }
  Own(families.max_running_requests, model_).Set(static_cast<double>(model.max_running_requests));
  Own(families.cache_config,
      With(With(model_, "block_size", absl::StrCat(model.block_size)), "num_blocks", absl::StrCat(model.num_blocks)))
      .Set(1);
  Own(families.model_info, With(With(model_, "sha256", model.sha256), "quantization", model.quantization)).Set(1);
  absl::MutexLock lock(&mutex_);
  AddVector(kOtherLabel);
}

ModelMetrics::~ModelMetrics() {
  absl::MutexLock lock(&mutex_);
  while (!vectors_.empty()) DropVector(std::string(vectors_.begin()->first));
  while (!drift_.empty()) DropDrift(std::string(drift_.begin()->first));
  for (const std::function<void()>& remove : owned_) remove();
}

void ModelMetrics::OnStep(const StepObservation& step) {
  batch_.Observe(static_cast<double>(step.sequences));
  (step.prefill_tokens > 0 ? prefill_step_ : decode_step_).Observe(absl::ToDoubleSeconds(step.duration));
  computed_tokens_.Increment(static_cast<double>(step.prefill_tokens));
  steered(false).generation_tokens.Increment(static_cast<double>(step.unsteered_output_tokens));
  steered(true).generation_tokens.Increment(static_cast<double>(step.steered_output_tokens));
  apply_seconds_.Increment(absl::ToDoubleSeconds(step.steering_duration));
  steered_sequences_.Set(static_cast<double>(step.steered_sequences));
  if (step.nonfinite_rows > 0) nonfinite_.Increment(static_cast<double>(step.nonfinite_rows));
}

void ModelMetrics::OnQueues(const QueueObservation& queues) {
  running_.Set(static_cast<double>(queues.running));
  waiting_.Set(static_cast<double>(queues.waiting));
  if (queues.total_blocks > 0) {
    cache_usage_.Set(static_cast<double>(queues.used_blocks) / static_cast<double>(queues.total_blocks));
  }
  if (queues.running == 0) steered_sequences_.Set(0);  // no step will say so
}

void ModelMetrics::OnInterTokenLatency(bool is_steered, absl::Duration gap) {
  steered(is_steered).token_gap.Observe(absl::ToDoubleSeconds(gap));
}

void ModelMetrics::OnRequestEnd(const RequestObservation& request) {
  finished_[ReasonIndex(request.reason)]->Increment();
  if (request.score) return;  // scoring has no tokens to wait for and would blur the latencies of those who do
  Steered& series = steered(request.steered);
  const int64_t tokens = request.usage.output_tokens;
  duration_.Observe(absl::ToDoubleSeconds(request.total));
  queue_.Observe(absl::ToDoubleSeconds(request.timing.queue));
  prompt_length_.Observe(static_cast<double>(request.usage.prompt_tokens));
  generation_length_.Observe(static_cast<double>(tokens));
  if (tokens == 0) return;
  prefill_.Observe(absl::ToDoubleSeconds(request.timing.prefill));
  decode_.Observe(absl::ToDoubleSeconds(request.timing.decode));
  series.first_token.Observe(absl::ToDoubleSeconds(request.time_to_first_token));
  if (tokens == 1) return;
  series.time_per_token.Observe(absl::ToDoubleSeconds(request.total - request.time_to_first_token) /
                                static_cast<double>(tokens - 1));
}

void ModelMetrics::OnPrefixLookup(int64_t queried_tokens, int64_t hit_tokens) {
  prefix_queries_.Increment(static_cast<double>(queried_tokens));
  prefix_hits_.Increment(static_cast<double>(hit_tokens));
  cached_tokens_.Increment(static_cast<double>(hit_tokens));
}

void ModelMetrics::OnBank(int64_t hits, int64_t misses, int64_t evictions, int64_t uploaded_bytes, int64_t bytes) {
  CountUpTo(bank_hits_, bank_totals_[0], hits);
  CountUpTo(bank_misses_, bank_totals_[1], misses);
  CountUpTo(bank_evictions_, bank_totals_[2], evictions);
  CountUpTo(upload_bytes_, bank_totals_[3], uploaded_bytes);
  bank_bytes_.Set(static_cast<double>(bytes));
}

void ModelMetrics::OnVectorUse(const std::string& objective, int64_t tokens) {
  absl::MutexLock lock(&mutex_);
  VectorSeries& series = UseVector(objective);
  series.requests->Increment();
  series.tokens->Increment(static_cast<double>(tokens));
}

void ModelMetrics::SetObjective(const std::string& objective, const std::vector<int64_t>& layers, double effect) {
  absl::MutexLock lock(&mutex_);
  VectorSeries& series = UseVector(objective);
  if (&series == &vectors_[kOtherLabel]) return;
  Labels labels = With(model_, "vector", objective);
  if (series.info != nullptr) families_.vector_info.Remove(series.info);
  series.info = &families_.vector_info.Add(With(labels, "layers", absl::StrJoin(layers, ",")));
  series.info->Set(1);
  if (series.effect == nullptr) series.effect = &families_.objective_effect.Add(labels);
  series.effect->Set(effect);
}

void ModelMetrics::RemoveObjective(const std::string& objective) {
  absl::MutexLock lock(&mutex_);
  if (vector_labels_.Remove(objective)) DropVector(objective);
  std::vector<std::string> keys;
  for (const auto& [key, series] : drift_) {
    if (key.starts_with(DriftKey(objective, ""))) keys.push_back(key);
  }
  for (const std::string& key : keys) {
    drift_labels_.Remove(key);
    DropDrift(key);
  }
}

void ModelMetrics::SetVectorCounts(const VectorCounts& counts) {
  ready_.Set(static_cast<double>(counts.ready));
  pending_.Set(static_cast<double>(counts.pending));
  disabled_.Set(static_cast<double>(counts.disabled));
  incompatible_.Set(static_cast<double>(counts.incompatible));
}

void ModelMetrics::OnDriftReport(const std::string& objective, const std::string& suite, const DriftNumbers& numbers) {
  absl::MutexLock lock(&mutex_);
  DriftSeries& series = UseDrift(objective, suite);
  series.baseline->Set(numbers.baseline_accuracy);
  series.steered->Set(numbers.accuracy);
  series.delta->Set(numbers.accuracy_delta);
  series.ci95->Set((numbers.ci95_high - numbers.ci95_low) / 2);
  series.samples->Set(static_cast<double>(numbers.samples));
  series.kl->Set(numbers.mean_kl_text);
  series.perplexity->Set(std::exp(numbers.cross_entropy_delta));
  series.last_run->Set(absl::ToDoubleSeconds(clock_.Now() - absl::UnixEpoch()));
  (numbers.ci95_high < kDriftTolerance ? series.fail : series.pass)->Increment();
}

void ModelMetrics::OnDriftError(const std::string& objective, const std::string& suite) {
  absl::MutexLock lock(&mutex_);
  UseDrift(objective, suite).error->Increment();
}

ModelMetrics::VectorSeries& ModelMetrics::UseVector(const std::string& objective) {
  std::optional<std::string> evicted;
  const bool has_place = vector_labels_.Use(objective, clock_.Now(), &evicted);
  if (evicted) DropVector(*evicted);
  if (!has_place) return vectors_[kOtherLabel];
  const auto found = vectors_.find(objective);
  return found != vectors_.end() ? found->second : AddVector(objective);
}

ModelMetrics::VectorSeries& ModelMetrics::AddVector(const std::string& label) {
  const Labels labels = With(model_, "vector", label);
  return vectors_[label] = {.requests = &families_.vector_requests.Add(labels),
                            .tokens = &families_.vector_tokens.Add(labels)};
}

void ModelMetrics::DropVector(const std::string& label) {
  const auto found = vectors_.find(label);
  if (found == vectors_.end()) return;
  families_.vector_requests.Remove(found->second.requests);
  families_.vector_tokens.Remove(found->second.tokens);
  if (found->second.info != nullptr) families_.vector_info.Remove(found->second.info);
  if (found->second.effect != nullptr) families_.objective_effect.Remove(found->second.effect);
  vectors_.erase(found);
}

ModelMetrics::DriftSeries& ModelMetrics::UseDrift(const std::string& objective, const std::string& suite) {
  const std::string key = DriftKey(objective, suite);
  std::optional<std::string> evicted;
  drift_labels_.Use(key, clock_.Now(), &evicted);
  if (evicted) DropDrift(*evicted);
  const auto found = drift_.find(key);
  if (found != drift_.end()) return found->second;
  const Labels labels = With(With(model_, "vector", objective), "suite", suite);
  return drift_[key] = {.baseline = &families_.drift_accuracy.Add(With(labels, "arm", "baseline")),
                        .steered = &families_.drift_accuracy.Add(With(labels, "arm", "steered")),
                        .delta = &families_.drift_accuracy_delta.Add(labels),
                        .ci95 = &families_.drift_accuracy_delta_ci95.Add(labels),
                        .samples = &families_.drift_samples.Add(labels),
                        .kl = &families_.drift_mean_kl.Add(labels),
                        .perplexity = &families_.drift_perplexity_ratio.Add(labels),
                        .last_run = &families_.drift_last_run.Add(labels),
                        .pass = &families_.drift_runs.Add(With(labels, "result", "pass")),
                        .fail = &families_.drift_runs.Add(With(labels, "result", "fail")),
                        .error = &families_.drift_runs.Add(With(labels, "result", "error"))};
}

void ModelMetrics::DropDrift(const std::string& key) {
  const auto found = drift_.find(key);
  if (found == drift_.end()) return;
  const DriftSeries& series = found->second;
  families_.drift_accuracy.Remove(series.baseline);
  families_.drift_accuracy.Remove(series.steered);
  families_.drift_accuracy_delta.Remove(series.delta);
  families_.drift_accuracy_delta_ci95.Remove(series.ci95);
  families_.drift_samples.Remove(series.samples);
  families_.drift_mean_kl.Remove(series.kl);
  families_.drift_perplexity_ratio.Remove(series.perplexity);
  families_.drift_last_run.Remove(series.last_run);
  for (Counter* counter : {series.pass, series.fail, series.error}) families_.drift_runs.Remove(counter);
  drift_.erase(found);
}

}  // namespace trimtab
