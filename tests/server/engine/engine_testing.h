// What the engine's tests share: a tiny model with random weights, vectors for it, sinks that can be waited for, and a
// reference that computes every sequence alone with dense attention.
#ifndef TRIMTAB_TESTS_SERVER_ENGINE_ENGINE_TESTING_H_
#define TRIMTAB_TESTS_SERVER_ENGINE_ENGINE_TESTING_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "models/loaded_model.h"
#include "server/base/clock.h"
#include "server/engine/engine.h"
#include "server/engine/request.h"

namespace trimtab {

// One model for all tests of a binary.
std::shared_ptr<const LoadedModel> TinyLoadedModel();

// A random direction at every layer of the tiny model.
std::shared_ptr<const SteeringVector> TinyVector(uint32_t seed, StrengthMode mode = StrengthMode::kRelative,
                                                 Site site = Site::kBlockOutput);
SteeringPlan OneVector(const std::shared_ptr<const SteeringVector>& vector, float strength, ApplyTo apply_to);

// `length` random token ids; the same for the same seed, so a longer one continues a shorter one.
std::vector<TokenId> RandomTokens(int64_t length, uint32_t seed);

// Remembers what it gets. Any thread.
class WaitingSink final : public RequestSink {
 public:
  // Called with each token, on the engine thread, before it is counted.
  std::function<void(int64_t count)> on_token;

  void OnToken(OutputToken token) override ABSL_LOCKS_EXCLUDED(mutex_);
  void OnEnd(RequestEnd end) override ABSL_LOCKS_EXCLUDED(mutex_);
  bool Ready() const override ABSL_LOCKS_EXCLUDED(mutex_);

  // After so many tokens it is not ready any more.
  void SetLimit(int64_t limit) ABSL_LOCKS_EXCLUDED(mutex_);
  // Blocks until the end.
  RequestEnd Wait() ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<OutputToken> tokens() const ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<TokenId> ids() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  bool Ended() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return end_.has_value(); }

  mutable absl::Mutex mutex_;
  std::vector<OutputToken> tokens_ ABSL_GUARDED_BY(mutex_);
  std::optional<RequestEnd> end_ ABSL_GUARDED_BY(mutex_);
  int64_t limit_ ABSL_GUARDED_BY(mutex_) = INT64_MAX;
};

// A greedy request of 12 tokens unless changed; its sink is a WaitingSink.
std::unique_ptr<Request> MakeRequest(const std::string& id, std::vector<TokenId> prompt, SteeringPlan plan = {});
// The request's sink.
std::shared_ptr<WaitingSink> SinkOf(const Request& request);

struct Answer {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;  // of the tokens; empty unless asked for
  RequestEnd end;
};
// Submits all at once and waits for all; in order.
std::vector<Answer> RunAll(Engine& engine, std::vector<std::unique_ptr<Request>> requests);
Answer RunOne(Engine& engine, std::unique_ptr<Request> request);

// One dense forward pass of the sequence alone, with the steering of its plan: log-probabilities at each position,
// [tokens, vocab] row-major.
std::vector<std::vector<float>> DenseLogprobs(const LoadedModel& model, const std::vector<TokenId>& tokens,
                                              int64_t prompt_length, const SteeringPlan& plan);
// Greedy tokens by repeated dense passes.
std::vector<TokenId> DenseGreedy(const LoadedModel& model, std::vector<TokenId> prompt, const SteeringPlan& plan,
                                 int64_t count);

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_ENGINE_ENGINE_TESTING_H_
