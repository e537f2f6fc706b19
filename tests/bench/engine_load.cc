#include "tests/bench/engine_load.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/base/status_macros.h"
#include "server/engine/engine_metrics.h"

namespace trimtab {

// Keeps the durations of steps that compute one token of each of `sequences` requests and nothing else.
class StepRecorder final : public EngineMetrics {
 public:
  void Start(int64_t sequences) {
    absl::MutexLock lock(&mutex_);
    sequences_ = sequences;
    seconds_.clear();
    total_ = steering_ = 0;
  }
  // Median duration, and steering's part of all of them.
  std::pair<double, double> Summary() {
    absl::MutexLock lock(&mutex_);
    if (seconds_.empty()) return {0, 0};
    std::nth_element(seconds_.begin(), seconds_.begin() + static_cast<ptrdiff_t>(seconds_.size() / 2), seconds_.end());
    return {seconds_[seconds_.size() / 2], steering_ / total_};
  }

  void OnStep(const StepObservation& step) override {
    absl::MutexLock lock(&mutex_);
    if (step.prefill_tokens != 0 || step.decode_tokens != sequences_) return;
    seconds_.push_back(absl::ToDoubleSeconds(step.duration));
    total_ += seconds_.back();
    steering_ += absl::ToDoubleSeconds(step.steering_duration);
  }
  void OnQueues(const QueueObservation&) override {}
  void OnInterTokenLatency(bool, absl::Duration) override {}
  void OnRequestEnd(const RequestObservation&) override {}
  void OnPrefixLookup(int64_t, int64_t) override {}
  void OnPreemption() override {}
  void OnStall() override {}
  void OnBank(int64_t, int64_t, int64_t, int64_t, int64_t) override {}

 private:
  absl::Mutex mutex_;
  int64_t sequences_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<double> seconds_ ABSL_GUARDED_BY(mutex_);
  double total_ ABSL_GUARDED_BY(mutex_) = 0, steering_ ABSL_GUARDED_BY(mutex_) = 0;
};

namespace {

class EndSink final : public RequestSink {
 public:
  explicit EndSink(absl::BlockingCounter& left) : left_(left) {}
  void OnToken(OutputToken) override {}
  void OnEnd(RequestEnd end) override {
    end_ = std::move(end);
    left_.DecrementCount();
  }
  const RequestEnd& end() const { return end_; }  // after the counter reached zero

 private:
  absl::BlockingCounter& left_;
  RequestEnd end_;
};

}  // namespace

EngineLoad::EngineLoad(std::shared_ptr<const LoadedModel> model, std::unique_ptr<StepRecorder> recorder)
    : model_(std::move(model)), recorder_(std::move(recorder)) {}
EngineLoad::~EngineLoad() = default;

absl::StatusOr<std::unique_ptr<EngineLoad>> EngineLoad::Create(std::shared_ptr<const LoadedModel> model,
                                                               const EngineConfig& config) {
  std::unique_ptr<EngineLoad> load(new EngineLoad(std::move(model), std::make_unique<StepRecorder>()));
  TRIMTAB_ASSIGN_OR_RETURN(load->engine_, Engine::Create(load->model_, config, load->clock_, load->recorder_.get()));
  return load;
}

std::shared_ptr<const SteeringVector> EngineLoad::Vector(int64_t number, bool all_layers) {
  std::shared_ptr<const SteeringVector>& made = vectors_[{number, all_layers}];
  if (made != nullptr) return made;
  const ModelSpec& spec = model_->model->spec();
  std::mt19937 random(static_cast<uint32_t>(number));
  std::normal_distribution<float> normal;
  SteeringVectorSpec vector;
  vector.model_fingerprint = model_->fingerprint;
  vector.method = "random";
  vector.hidden_size = spec.hidden_size;
  for (int64_t layer = 0; layer < spec.num_layers(); ++layer) {
    if (!all_layers && layer != spec.num_layers() / 2) continue;
    LayerDirection direction;
    direction.layer = layer;
    double square = 0;
    for (int64_t i = 0; i < spec.hidden_size; ++i) {
      direction.direction.push_back(normal(random));
      square += direction.direction.back() * direction.direction.back();
    }
    for (float& x : direction.direction) x = static_cast<float>(x / std::sqrt(square));
    vector.layers.push_back(std::move(direction));
  }
  made = *SteeringVector::Create(std::move(vector));
  return made;
}

SteeringPlan EngineLoad::Plan(const WaveSteering& steering, int64_t setting) {
  std::vector<PlannedSteering> entries;
  for (int64_t i = 0; i < steering.per_request; ++i) {
    // The further objectives of a request are the next settings': also distinct, and in as many combinations.
    const int64_t number =
        steering.one_objective ? i : (setting + i) % std::max(steering.settings, steering.per_request);
    entries.push_back({.vector = Vector(number, steering.all_layers),
                       .objective = absl::StrCat("models/bench/objectives/o", number),
                       .revision = 1,
                       .strength = 0.01f + 0.0001f * static_cast<float>(setting),
                       .apply_to = ApplyTo::kAll});
  }
  return SteeringPlan(std::move(entries));
}

absl::StatusOr<WaveResult> EngineLoad::RunWave(int64_t batch, int64_t prompt_tokens, int64_t output_tokens,
                                               const WaveSteering& steering) {
  std::vector<std::unique_ptr<Request>> requests;
  std::vector<std::shared_ptr<EndSink>> sinks;
  absl::BlockingCounter left(static_cast<int>(batch));
  std::uniform_int_distribution<TokenId> token(0, static_cast<TokenId>(model_->model->spec().vocab_size - 1));
  for (int64_t i = 0; i < batch; ++i) {
    auto request = std::make_unique<Request>();
    request->id = absl::StrCat(next_id_++);
    for (int64_t j = 0; j < prompt_tokens; ++j) request->tokens.push_back(token(random_));
    request->prompt_length = prompt_tokens;
    request->sampling.max_output_tokens = output_tokens;
    if (steering.settings > 0) request->plan = Plan(steering, (steering.wave * batch + i) % steering.settings);
    sinks.push_back(std::make_shared<EndSink>(left));
    request->sink = sinks.back();
    requests.push_back(std::move(request));
  }
  recorder_->Start(batch);
  const absl::Time begin = absl::Now();
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i]->arrival = absl::Now();
    if (absl::Status status = engine_->Submit(std::move(requests[i])); !status.ok()) {
      for (size_t j = i; j < requests.size(); ++j) left.DecrementCount();  // never submitted
      left.Wait();
      return status;
    }
  }
  left.Wait();
  WaveResult result;
  result.seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  for (const auto& sink : sinks) {
    if (!sink->end().status.ok()) return sink->end().status;
    result.prefill_seconds = std::max(result.prefill_seconds, absl::ToDoubleSeconds(sink->end().timing.prefill));
    result.decode_seconds = std::max(result.decode_seconds, absl::ToDoubleSeconds(sink->end().timing.decode));
  }
  std::tie(result.step_seconds, result.steering_share) = recorder_->Summary();
  return result;
}

}  // namespace trimtab
