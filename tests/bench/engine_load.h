// Waves of requests through an engine in this process, without a server: what the benchmarks of decoding, prefill and
// steering measure. Main thread.
#ifndef TRIMTAB_TESTS_BENCH_ENGINE_LOAD_H_
#define TRIMTAB_TESTS_BENCH_ENGINE_LOAD_H_

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "models/loaded_model.h"
#include "server/base/clock.h"
#include "server/engine/engine.h"
#include "steering/steering_plan.h"

namespace trimtab {

class StepRecorder;

// How the requests of a wave are steered. Setting s is an objective of its own when `one_objective` is false, else one
// strength of a single objective. Request i of wave w has setting (w * batch + i) mod settings, so that waves in a row
// go through all settings.
struct WaveSteering {
  int64_t settings = 0;     // distinct (objective, strength) settings; 0: not steered
  int64_t per_request = 1;  // objectives of one request, at most kMaxSelections
  bool all_layers = true;   // else the middle one
  bool one_objective = false;
  int64_t wave = 0;
};

struct WaveResult {
  double seconds = 0;          // from the first request's submission to the last one's end
  double prefill_seconds = 0;  // from the first scheduled step to the first token; the longest of the requests
  double decode_seconds = 0;   // from the first token to the last; the longest of the requests
  double step_seconds = 0;     // median of the steps that only decode, all requests of the wave in them; 0: none was
  double steering_share = 0;   // part of those steps' time that steering reports for itself
};

class EngineLoad {
 public:
  static absl::StatusOr<std::unique_ptr<EngineLoad>> Create(std::shared_ptr<const LoadedModel> model,
                                                            const EngineConfig& config);
  ~EngineLoad();

  // `batch` requests at once, `prompt_tokens` random tokens each (no prefix is shared), `output_tokens` greedy ones.
  // The engine's own refusal of a request.
  absl::StatusOr<WaveResult> RunWave(int64_t batch, int64_t prompt_tokens, int64_t output_tokens,
                                     const WaveSteering& steering);

 private:
  EngineLoad(std::shared_ptr<const LoadedModel> model, std::unique_ptr<StepRecorder> recorder);
  std::shared_ptr<const SteeringVector> Vector(int64_t number, bool all_layers);
  SteeringPlan Plan(const WaveSteering& steering, int64_t setting);

  const std::shared_ptr<const LoadedModel> model_;
  const RealClock clock_;
  const std::unique_ptr<StepRecorder> recorder_;
  std::unique_ptr<Engine> engine_;  // ends before what it reports to
  std::mt19937 random_{20261124};
  int64_t next_id_ = 0;
  std::map<std::pair<int64_t, bool>, std::shared_ptr<const SteeringVector>> vectors_;  // made when first used
};

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_BENCH_ENGINE_LOAD_H_
