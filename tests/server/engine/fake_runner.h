// Behavioural fakes for the scheduler's tests: a bank of slots, a sink that remembers, and a runner whose "keys and
// values" are a hash over everything that they depend on, kept in the physical blocks, so that a wrongly shared,
// overwritten or lost block changes the tokens.
#ifndef TRIMTAB_TESTS_SERVER_ENGINE_FAKE_RUNNER_H_
#define TRIMTAB_TESTS_SERVER_ENGINE_FAKE_RUNNER_H_

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/engine/scheduler.h"

namespace trimtab {

// A vector of a 2-dimensional model; different `angle`s make different digests.
inline std::shared_ptr<const SteeringVector> FakeVector(double angle) {
  SteeringVectorSpec spec;
  spec.model_fingerprint = "fake";
  spec.method = "random";
  spec.hidden_size = 2;
  spec.layers.push_back(
      {.layer = 0, .direction = {static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))}});
  return *SteeringVector::Create(std::move(spec));
}

inline SteeringPlan FakePlan(std::vector<std::pair<std::shared_ptr<const SteeringVector>, float>> vectors,
                             ApplyTo apply_to) {
  std::vector<PlannedSteering> entries;
  for (auto& [vector, strength] : vectors) {
    entries.push_back({.vector = vector, .objective = "o", .revision = 1, .strength = strength, .apply_to = apply_to});
  }
  return SteeringPlan(std::move(entries));
}

class FakeSlots final : public SteeringSlots {
 public:
  explicit FakeSlots(int count) : vectors_(count), references_(count, 0) {}

  std::optional<int32_t> Acquire(const std::shared_ptr<const SteeringVector>& vector) override {
    int32_t idle = -1;
    for (int32_t slot = 0; slot < static_cast<int32_t>(vectors_.size()); ++slot) {
      if (vectors_[slot] != nullptr && vectors_[slot]->digest() == vector->digest()) {
        ++references_[slot];
        return slot;
      }
      if (references_[slot] == 0) idle = slot;
    }
    if (idle < 0) return std::nullopt;
    vectors_[idle] = vector;
    references_[idle] = 1;
    return idle;
  }
  void Release(int32_t slot) override {
    --references_[slot];
    EXPECT_GE(references_[slot], 0);
  }
  const SteeringVector& vector(int32_t slot) const { return *vectors_[slot]; }
  int64_t references() const {
    int64_t sum = 0;
    for (int64_t count : references_) sum += count;
    return sum;
  }

 private:
  std::vector<std::shared_ptr<const SteeringVector>> vectors_;
  std::vector<int64_t> references_;
};

struct FakeSink final : RequestSink {
  void OnToken(OutputToken token) override {
    EXPECT_FALSE(end) << "a token after the end";
    tokens.push_back(token.token);
  }
  void OnEnd(RequestEnd request_end) override {
    EXPECT_FALSE(end) << "ended twice";
    end = std::move(request_end);
  }
  bool Ready() const override { return ready; }

  std::vector<TokenId> tokens;
  std::optional<RequestEnd> end;
  bool ready = true;
};

class FakeRunner {
 public:
  static constexpr uint64_t kVocab = 23;

  FakeRunner(const FakeSlots& slots, int64_t num_blocks, int64_t block_size)
      : slots_(slots), block_size_(block_size), states_(num_blocks * block_size, 0) {}

  // Items for which `fails` is true get INTERNAL.
  StepResult Execute(const StepPlan& plan, const std::function<bool(const Sequence&)>& fails = nullptr) {
    StepResult result;
    for (const StepItem& item : plan.items) {
      StepItemResult& outcome = result.items.emplace_back();
      const Sequence& sequence = *item.sequence;
      EXPECT_GE(item.length, 1);
      EXPECT_GE(static_cast<int64_t>(sequence.blocks.size()) * block_size_, item.end());
      for (int64_t position = item.context; position < item.end(); ++position) {
        const uint64_t before = position == 0 ? 0 : State(sequence, position - 1);
        const uint64_t state = Next(before, sequence.tokens[position], SteeringAt(sequence, position));
        State(sequence, position) = state;
        result.row_dose.push_back(sequence.steered() ? 1 : 0);
        ++rows_computed;
        if (position < item.logits_begin) continue;
        if (sequence.request->score) {
          outcome.scored.push_back({sequence.tokens[position + 1], Logprob(state)});
        } else if (position + 1 == item.end()) {
          outcome.token = OutputToken{Token(state)};
        }
      }
      if (fails && fails(sequence)) outcome = {.status = absl::InternalError("injected")};
    }
    return result;
  }

  // What a request gives when it is alone: tokens up to the first of its end tokens or `limit`.
  static std::vector<TokenId> Alone(const Request& request, int64_t max_context) {
    std::vector<TokenId> tokens = request.tokens, output;
    uint64_t state = 0;
    for (size_t position = 0;; ++position) {
      state = Next(state, tokens[position], SteeringAt(request, position));
      if (position + 1 < tokens.size()) continue;
      const TokenId token = Token(state);
      for (TokenId end : request.sampling.end_tokens) {
        if (token == end) return output;
      }
      tokens.push_back(token);
      output.push_back(token);
      if (static_cast<int64_t>(output.size()) == request.sampling.max_output_tokens ||
          static_cast<int64_t>(tokens.size()) == max_context) {
        return output;
      }
    }
  }
  static std::vector<float> ScoresAlone(const Request& request) {
    std::vector<float> scores;
    uint64_t state = 0;
    for (int64_t position = 0; position + 1 < static_cast<int64_t>(request.tokens.size()); ++position) {
      state = Next(state, request.tokens[position], SteeringAt(request, position));
      if (position + 1 >= request.prompt_length) scores.push_back(Logprob(state));
    }
    return scores;
  }

  int64_t rows_computed = 0;

 private:
  static uint64_t Mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
    return x ^ (x >> 31);
  }
  static uint64_t Next(uint64_t state, TokenId token, uint64_t steering) {
    return Mix(Mix(state + 0x9E3779B97F4A7C15 + static_cast<uint64_t>(token)) + steering);
  }
  static uint64_t Hash(const SteeringVector& vector, float strength) {
    return Mix(std::hash<std::string>()(vector.digest()) + static_cast<uint64_t>(strength * 1000));
  }
  static TokenId Token(uint64_t state) { return static_cast<TokenId>(state % kVocab); }
  static float Logprob(uint64_t state) { return -static_cast<float>(state % 1000) / 100; }

  static uint64_t SteeringAt(const Request& request, int64_t position) {
    uint64_t sum = 0;
    for (const PlannedSteering& entry : request.plan.entries()) {
      if (entry.strength == 0 || position < entry.steer_from(request.prompt_length)) continue;
      sum += Hash(*entry.vector, entry.strength);
    }
    return sum;
  }
  // As above, by what the slots really hold.
  uint64_t SteeringAt(const Sequence& sequence, int64_t position) const {
    uint64_t sum = 0;
    const std::vector<PlannedSteering>& entries = sequence.request->plan.entries();
    for (size_t i = 0; i < entries.size(); ++i) {
      if (entries[i].strength == 0 || position < entries[i].steer_from(sequence.request->prompt_length)) continue;
      sum += Hash(slots_.vector(sequence.slots[i]), entries[i].strength);
    }
    return sum;
  }
  uint64_t& State(const Sequence& sequence, int64_t position) {
    return states_[sequence.blocks[position / block_size_] * block_size_ + position % block_size_];
  }

  const FakeSlots& slots_;
  const int64_t block_size_;
  std::vector<uint64_t> states_;  // [blocks * block_size]
};

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_ENGINE_FAKE_RUNNER_H_
