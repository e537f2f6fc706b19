// What the tests of Engine share: a tiny engine and a clock that stands still.
#ifndef TRIMTAB_TESTS_SERVER_ENGINE_ENGINE_FIXTURE_H_
#define TRIMTAB_TESTS_SERVER_ENGINE_ENGINE_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "server/base/error.h"
#include "server/engine/engine.h"
#include "tests/server/engine/engine_testing.h"

namespace trimtab {

inline EngineConfig Config(int64_t blocks = 64) {
  EngineConfig config;
  config.block_size = 4;
  config.kv_cache_bytes = blocks * config.block_size * TinyLoadedModel()->model->spec().kv_bytes_per_token(4);
  config.steering_slots = 8;
  return config;
}

class EngineTest : public testing::Test {
 protected:
  std::unique_ptr<Engine> Make(const EngineConfig& config, EngineMetrics* metrics = nullptr) {
    return *Engine::Create(model_, config, clock_, metrics);
  }
  std::string Reason(const absl::Status& status) { return GetErrorDetail(status).reason; }

  const std::shared_ptr<const LoadedModel> model_ = TinyLoadedModel();
  ManualClock clock_;
};

// Holds the engine's thread at its first token until told to go on.
struct Gate {
  void Hold(WaitingSink& sink) {
    sink.on_token = [this](int64_t count) {
      if (count != 1) return;
      reached.Notify();
      open.WaitForNotification();
    };
  }
  absl::Notification reached, open;
};

// Eight requests that differ in prompt, plan, length and sampling.
inline std::vector<std::unique_ptr<Request>> MixedRequests() {
  const auto a = TinyVector(1), b = TinyVector(2), c = TinyVector(3);
  std::vector<PlannedSteering> several;
  for (const auto& vector : {a, b, c, a}) {
    several.push_back({.vector = vector,
                       .objective = "o",
                       .revision = 1,
                       .strength = 0.1f * (1 + several.size()),
                       .apply_to = static_cast<ApplyTo>(1 + several.size() % 3)});
  }
  const std::vector<SteeringPlan> plans = {{},
                                           OneVector(a, 0.4f, ApplyTo::kAll),
                                           OneVector(a, -0.4f, ApplyTo::kAll),
                                           {},
                                           OneVector(b, 0.3f, ApplyTo::kResponse),
                                           OneVector(c, 0.5f, ApplyTo::kFromLastPrompt),
                                           OneVector(b, 0, ApplyTo::kAll),
                                           SteeringPlan(several)};
  std::vector<std::unique_ptr<Request>> requests;
  for (size_t i = 0; i < plans.size(); ++i) {
    auto request =
        MakeRequest("mixed " + std::to_string(i), RandomTokens(5 + 4 * static_cast<int64_t>(i), 10 + i % 3), plans[i]);
    request->sampling.logprobs = 2;
    request->sampling.max_output_tokens = 10 + static_cast<int64_t>(i);
    if (i % 2 == 1) {
      request->sampling.temperature = 1;
      request->sampling.top_p = 0.9f;
      request->sampling.seed = i;
    }
    if (i == 3) request->sampling.repetition_penalty = 1.5f;
    requests.push_back(std::move(request));
  }
  return requests;
}

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_ENGINE_ENGINE_FIXTURE_H_
