#include "tests/server/engine/engine_testing.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "models/attention/dense_attention.h"
#include "models/testing/tiny_model.h"
#include "steering/runtime/steering_tap.h"

namespace trimtab {

std::shared_ptr<const LoadedModel> TinyLoadedModel() {
  static const std::shared_ptr<const LoadedModel> model = MakeTinyLoadedModel({.num_layers = 3});
  return model;
}

std::shared_ptr<const SteeringVector> TinyVector(uint32_t seed, StrengthMode mode, Site site) {
  const ModelSpec& model = TinyLoadedModel()->model->spec();
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  SteeringVectorSpec spec;
  spec.model_fingerprint = TinyLoadedModel()->fingerprint;
  spec.method = "random";
  spec.site = site;
  spec.strength_mode = mode;
  spec.hidden_size = model.hidden_size;
  for (int64_t layer = 0; layer < model.num_layers(); ++layer) {
    LayerDirection direction;
    direction.layer = layer;
    double square = 0;
    for (int64_t i = 0; i < spec.hidden_size; ++i) {
      direction.direction.push_back(normal(random));
      square += direction.direction.back() * direction.direction.back();
    }
    for (float& x : direction.direction) x = static_cast<float>(x / std::sqrt(square));
    spec.layers.push_back(std::move(direction));
  }
  return *SteeringVector::Create(std::move(spec));
}

SteeringPlan OneVector(const std::shared_ptr<const SteeringVector>& vector, float strength, ApplyTo apply_to) {
  return SteeringPlan(
      {{.vector = vector, .objective = "o", .revision = 1, .strength = strength, .apply_to = apply_to}});
}

std::vector<TokenId> RandomTokens(int64_t length, uint32_t seed) {
  std::mt19937 random(seed);
  const uint32_t vocab = static_cast<uint32_t>(TinyLoadedModel()->model->spec().vocab_size);
  std::vector<TokenId> tokens(length);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % vocab);
  return tokens;
}

void WaitingSink::OnToken(OutputToken token) {
  if (on_token) on_token(static_cast<int64_t>(tokens().size()) + 1);
  absl::MutexLock lock(&mutex_);
  EXPECT_FALSE(end_) << "a token after the end";
  tokens_.push_back(std::move(token));
}

void WaitingSink::OnEnd(RequestEnd end) {
  absl::MutexLock lock(&mutex_);
  EXPECT_FALSE(end_) << "ended twice";
  end_ = std::move(end);
}

bool WaitingSink::Ready() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int64_t>(tokens_.size()) < limit_;
}

void WaitingSink::SetLimit(int64_t limit) {
  absl::MutexLock lock(&mutex_);
  limit_ = limit;
}

RequestEnd WaitingSink::Wait() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &WaitingSink::Ended));
  return *end_;
}

std::vector<OutputToken> WaitingSink::tokens() const {
  absl::MutexLock lock(&mutex_);
  return tokens_;
}

std::vector<TokenId> WaitingSink::ids() const {
  std::vector<TokenId> ids;
  for (const OutputToken& token : tokens()) ids.push_back(token.token);
  return ids;
}

std::unique_ptr<Request> MakeRequest(const std::string& id, std::vector<TokenId> prompt, SteeringPlan plan) {
  auto request = std::make_unique<Request>();
  request->id = id;
  request->prompt_length = static_cast<int64_t>(prompt.size());
  request->tokens = std::move(prompt);
  request->sampling.max_output_tokens = 12;
  request->plan = std::move(plan);
  request->sink = std::make_shared<WaitingSink>();
  return request;
}

std::shared_ptr<WaitingSink> SinkOf(const Request& request) {
  return std::static_pointer_cast<WaitingSink>(request.sink);
}

std::vector<Answer> RunAll(Engine& engine, std::vector<std::unique_ptr<Request>> requests) {
  std::vector<std::shared_ptr<WaitingSink>> sinks;
  for (std::unique_ptr<Request>& request : requests) {
    sinks.push_back(SinkOf(*request));
    const absl::Status status = engine.Submit(std::move(request));
    EXPECT_TRUE(status.ok()) << status;
  }
  std::vector<Answer> answers;
  for (const std::shared_ptr<WaitingSink>& sink : sinks) {
    Answer answer;
    answer.end = sink->Wait();
    answer.tokens = sink->ids();
    for (const OutputToken& token : sink->tokens()) answer.logprobs.push_back(token.logprob);
    answers.push_back(std::move(answer));
  }
  return answers;
}

Answer RunOne(Engine& engine, std::unique_ptr<Request> request) {
  std::vector<std::unique_ptr<Request>> requests;
  requests.push_back(std::move(request));
  return RunAll(engine, std::move(requests))[0];
}

std::vector<std::vector<float>> DenseLogprobs(const LoadedModel& model, const std::vector<TokenId>& tokens,
                                              int64_t prompt_length, const SteeringPlan& plan) {
  at::NoGradGuard no_grad;
  const ModelSpec& spec = model.model->spec();
  const int64_t length = static_cast<int64_t>(tokens.size());
  SteeringBank bank(kMaxSelections, spec.num_layers(), spec.hidden_size);
  SteeringRows rows;
  rows.entries.resize(length * kMaxSelections);
  for (size_t j = 0; j < plan.entries().size(); ++j) {
    const PlannedSteering& entry = plan.entries()[j];
    const int32_t slot = *bank.Acquire(entry.vector);
    for (int64_t position = entry.steer_from(prompt_length); position < length; ++position) {
      rows.entries[position * kMaxSelections + static_cast<int64_t>(j)] = {slot, entry.strength};
    }
  }
  SteeringTap tap(bank, rows);
  DenseAttention attention;
  const TokenLayout layout = TokenLayout::Dense({{.length = length}});
  const std::vector<int64_t> ids(tokens.begin(), tokens.end());
  const at::Tensor hidden =
      model.model->Forward(model.model->Embed(at::tensor(ids, at::kLong)), {layout, attention, tap});
  const at::Tensor logprobs = at::log_softmax(model.model->Logits(hidden), -1).contiguous();  // [length, vocab]
  std::vector<std::vector<float>> result;
  for (int64_t i = 0; i < length; ++i) {
    const float* row = logprobs.data_ptr<float>() + i * spec.vocab_size;
    result.emplace_back(row, row + spec.vocab_size);
  }
  return result;
}

std::vector<TokenId> DenseGreedy(const LoadedModel& model, std::vector<TokenId> prompt, const SteeringPlan& plan,
                                 int64_t count) {
  const int64_t prompt_length = static_cast<int64_t>(prompt.size());
  std::vector<TokenId> output;
  while (static_cast<int64_t>(output.size()) < count) {
    const std::vector<float> row = DenseLogprobs(model, prompt, prompt_length, plan).back();
    output.push_back(static_cast<TokenId>(std::max_element(row.begin(), row.end()) - row.begin()));
    prompt.push_back(output.back());
  }
  return output;
}

}  // namespace trimtab
