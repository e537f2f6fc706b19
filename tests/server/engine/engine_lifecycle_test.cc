// How requests end, and how an engine fails and stops.
#include "server/engine/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <new>
#include <thread>

#include "server/base/error.h"
#include "server/engine/engine_metrics.h"
#include "tests/server/engine/engine_fixture.h"
#include "tests/server/engine/engine_testing.h"

namespace trimtab {
namespace {

TEST_F(EngineTest, CancelEndsWithinOneStep) {
  const auto engine = Make(Config());
  for (const FinishReason reason : {FinishReason::kCancelled, FinishReason::kStopSequence}) {
    auto request = MakeRequest("a", RandomTokens(9, 5));
    request->sampling.max_output_tokens = 60;
    SinkOf(*request)->on_token = [&](int64_t count) {
      if (count == 3) engine->Abort("a", reason);
    };
    const Answer answer = RunOne(*engine, std::move(request));
    EXPECT_EQ(answer.end.reason, reason);
    EXPECT_EQ(answer.tokens.size(), 3);
    EXPECT_EQ(answer.end.status.ok(), reason == FinishReason::kStopSequence);
  }
  engine->Abort("never", FinishReason::kCancelled);
  engine->Drain(absl::InfiniteFuture());
  EXPECT_EQ(engine->stats().running, 0);
  EXPECT_EQ(engine->stats().free_blocks, engine->stats().total_blocks);
}

TEST_F(EngineTest, DeadlineEndsTheRequest) {
  const auto engine = Make(Config());
  auto request = MakeRequest("a", RandomTokens(9, 5));
  request->sampling.max_output_tokens = 60;
  request->deadline = clock_.Now() + absl::Seconds(5);
  SinkOf(*request)->on_token = [&](int64_t count) {
    if (count == 4) clock_.Advance(absl::Seconds(5));
  };
  const Answer answer = RunOne(*engine, std::move(request));
  EXPECT_EQ(answer.end.reason, FinishReason::kDeadline);
  EXPECT_EQ(Reason(answer.end.status), kDeadlineExceeded);
  EXPECT_EQ(answer.tokens.size(), 4);
  auto late = MakeRequest("b", RandomTokens(9, 5));
  late->deadline = clock_.Now();
  EXPECT_EQ(engine->Submit(std::move(late)).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(EngineTest, SlowConsumersPauseResumeAndStallOut) {
  const auto engine = Make(Config());
  auto slow = MakeRequest("slow", RandomTokens(9, 5));
  const auto sink = SinkOf(*slow);
  sink->SetLimit(2);
  ASSERT_TRUE(engine->Submit(std::move(slow)).ok());
  EXPECT_EQ(RunOne(*engine, MakeRequest("other", RandomTokens(9, 6))).tokens.size(), 12) << "others go on";
  EXPECT_EQ(sink->tokens().size(), 2) << "no more than it can take";
  while (engine->stats().running != 1) std::this_thread::yield();  // it keeps its blocks
  sink->SetLimit(5);
  engine->Resume("slow");
  RunOne(*engine, MakeRequest("other", RandomTokens(9, 6)));
  EXPECT_EQ(sink->ids(), DenseGreedy(*model_, RandomTokens(9, 5), {}, 5));
  clock_.Advance(absl::Seconds(31));
  engine->Resume("slow");
  const RequestEnd end = sink->Wait();
  EXPECT_EQ(end.reason, FinishReason::kCancelled);
  EXPECT_EQ(end.status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(end.usage.output_tokens, 5);
}

TEST_F(EngineTest, DrainLetsRequestsFinishAndRefusesNewOnes) {
  const auto engine = Make(Config());
  Gate gate;
  auto request = MakeRequest("a", RandomTokens(5, 1));
  const auto sink = SinkOf(*request);
  gate.Hold(*sink);
  ASSERT_TRUE(engine->Submit(std::move(request)).ok());
  gate.reached.WaitForNotification();
  std::thread drain([&] { engine->Drain(absl::InfiniteFuture()); });
  while (Reason(engine->Submit(MakeRequest("b", {1}))) != kShuttingDown) std::this_thread::yield();
  gate.open.Notify();
  drain.join();
  EXPECT_EQ(sink->tokens().size(), 12);
  EXPECT_EQ(sink->Wait().reason, FinishReason::kLength);
  engine->Drain(absl::InfiniteFuture());
}

TEST_F(EngineTest, DrainAbortsAtItsDeadline) {
  const auto engine = Make(Config());
  auto request = MakeRequest("stuck", RandomTokens(5, 1));
  const auto sink = SinkOf(*request);
  sink->SetLimit(1);
  ASSERT_TRUE(engine->Submit(std::move(request)).ok());
  engine->Drain(clock_.Now());
  const RequestEnd end = sink->Wait();
  EXPECT_EQ(end.reason, FinishReason::kCancelled);
  EXPECT_EQ(Reason(end.status), kShuttingDown);
}

TEST_F(EngineTest, ADrainTellsItsReason) {
  const auto engine = Make(Config());
  auto request = MakeRequest("stuck", RandomTokens(5, 1));
  const auto sink = SinkOf(*request);
  sink->SetLimit(1);
  ASSERT_TRUE(engine->Submit(std::move(request)).ok());
  engine->Drain(clock_.Now(), ReasonError(absl::StatusCode::kUnavailable, kModelNotReady, "it is being unloaded"));
  EXPECT_EQ(Reason(sink->Wait().status), kModelNotReady);
  EXPECT_EQ(Reason(engine->Submit(MakeRequest("b", {1}))), kModelNotReady);
  engine->Drain(clock_.Now());
  EXPECT_EQ(Reason(engine->Submit(MakeRequest("c", {1}))), kModelNotReady);
}

TEST_F(EngineTest, DestructionEndsEverything) {
  auto engine = Make(Config());
  std::vector<std::shared_ptr<WaitingSink>> sinks;
  for (std::unique_ptr<Request>& request : MixedRequests()) {
    sinks.push_back(SinkOf(*request));
    sinks.back()->SetLimit(1);
    ASSERT_TRUE(engine->Submit(std::move(request)).ok());
  }
  engine.reset();
  for (const auto& sink : sinks) EXPECT_EQ(Reason(sink->Wait().status), kShuttingDown);
}

TEST_F(EngineTest, NonFiniteActivationsEndOneRequestOnly) {
  const auto engine = Make(Config(/*blocks=*/12));
  const SteeringPlan absurd = OneVector(TinyVector(1, StrengthMode::kAbsolute), 1e38f, ApplyTo::kAll);
  const std::vector<TokenId> prompt = RandomTokens(13, 5);
  for (int round = 0; round < 3; ++round) {  // also after its cache blocks were given to others
    std::vector<std::unique_ptr<Request>> requests;
    requests.push_back(MakeRequest("bad", prompt, absurd));
    requests.push_back(MakeRequest("good", prompt));
    const std::vector<Answer> answers = RunAll(*engine, std::move(requests));
    EXPECT_EQ(answers[0].end.reason, FinishReason::kError);
    EXPECT_EQ(Reason(answers[0].end.status), kNonFinite);
    EXPECT_TRUE(answers[1].end.status.ok());
    EXPECT_EQ(answers[1].tokens, DenseGreedy(*model_, prompt, {}, 12));
  }
  EXPECT_TRUE(engine->stats().healthy);
}

// The tiny model, except that it throws when told to.
class FaultyModel final : public CausalModel {
 public:
  explicit FaultyModel(std::shared_ptr<const CausalModel> model) : model_(std::move(model)) {}
  const ModelSpec& spec() const override { return model_->spec(); }
  at::ScalarType dtype() const override { return model_->dtype(); }
  at::Tensor Embed(const at::Tensor& ids) const override { return model_->Embed(ids); }
  at::Tensor Forward(at::Tensor embeddings, const ForwardContext& context) const override {
    if (fault == 1) throw std::bad_alloc();
    TORCH_CHECK(fault != 2, "a kernel failed");
    TORCH_CHECK(fault != 3, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte");
    return model_->Forward(std::move(embeddings), context);
  }
  int64_t weight_bytes() const override { return model_->weight_bytes(); }
  at::Tensor Logits(const at::Tensor& hidden, Workspace* workspace, Arithmetic arithmetic) const override {
    return model_->Logits(hidden, workspace, arithmetic);
  }

  mutable std::atomic<int> fault{0};

 private:
  const std::shared_ptr<const CausalModel> model_;
};

TEST_F(EngineTest, FailedStepsEndTheirRequestsAndTheEngineGoesOn) {
  auto faulty = std::make_shared<FaultyModel>(model_->model);
  auto loaded = std::make_shared<LoadedModel>(*model_);
  loaded->model = faulty;
  const auto engine = *Engine::Create(loaded, Config(), clock_, nullptr);
  const std::vector<TokenId> prompt = RandomTokens(9, 5);
  for (const auto& [fault, reason] :
       {std::pair{1, kDeviceOutOfMemory}, std::pair{2, kInternal}, std::pair{3, kDeviceOutOfMemory}}) {
    faulty->fault = fault;
    const Answer failed = RunOne(*engine, MakeRequest("a", prompt));
    EXPECT_EQ(failed.end.reason, FinishReason::kError);
    EXPECT_EQ(Reason(failed.end.status), reason);
    faulty->fault = 0;
    EXPECT_EQ(RunOne(*engine, MakeRequest("a", prompt)).tokens, DenseGreedy(*model_, prompt, {}, 12));
  }
  EXPECT_TRUE(engine->stats().healthy);
  faulty->fault = 2;
  absl::Status status;
  for (int i = 0; i < 20 && status.ok(); ++i) {
    auto request = MakeRequest("a", prompt);
    const auto sink = SinkOf(*request);
    status = engine->Submit(std::move(request));
    if (status.ok()) sink->Wait();
  }
  EXPECT_EQ(Reason(status), kEngineUnhealthy);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(engine->stats().healthy);
}

// Sums what it is told. Engine thread; read after Drain.
struct SumMetrics final : EngineMetrics {
  void OnStep(const StepObservation& step) override {
    prefill += step.prefill_tokens;
    decode += step.decode_tokens;
    steered += step.steered_output_tokens;
    unsteered += step.unsteered_output_tokens;
    steering_time += step.steering_duration;
    step_time += step.duration;
  }
  void OnQueues(const QueueObservation& queues) override { last_queues = queues; }
  void OnInterTokenLatency(bool, absl::Duration) override { ++gaps; }
  void OnRequestEnd(const RequestObservation& request) override {
    ++ended;
    output += request.usage.output_tokens;
  }
  void OnPrefixLookup(int64_t queried, int64_t hit) override {
    prefix_queried += queried;
    prefix_hit += hit;
  }
  void OnPreemption() override { ++preemptions; }
  void OnStall() override { ++stalls; }
  void OnBank(int64_t, int64_t misses, int64_t, int64_t, int64_t bytes) override {
    bank_misses = misses;
    bank_bytes = bytes;
  }
  int64_t prefill = 0, decode = 0, steered = 0, unsteered = 0, gaps = 0, ended = 0, output = 0, prefix_queried = 0,
          prefix_hit = 0, preemptions = 0, stalls = 0, bank_misses = 0, bank_bytes = 0;
  absl::Duration steering_time, step_time;
  QueueObservation last_queues;
};

TEST_F(EngineTest, MetricsAddUp) {
  SumMetrics metrics;
  const auto engine = Make(Config(), &metrics);
  const auto plan = OneVector(TinyVector(1), 0.4f, ApplyTo::kAll);
  RunOne(*engine, MakeRequest("a", RandomTokens(9, 5)));
  RunOne(*engine, MakeRequest("b", RandomTokens(9, 5)));
  RunOne(*engine, MakeRequest("c", RandomTokens(9, 5), plan));
  engine->Drain(absl::InfiniteFuture());
  EXPECT_EQ(metrics.prefill, 9 + 1 + 9);
  EXPECT_EQ(metrics.decode, 3 * 11);
  EXPECT_EQ(metrics.unsteered, 24);
  EXPECT_EQ(metrics.steered, 12);
  EXPECT_EQ(metrics.gaps, 3 * 11);
  EXPECT_EQ(metrics.ended, 3);
  EXPECT_EQ(metrics.output, 36);
  EXPECT_EQ(metrics.prefix_queried, 27);
  EXPECT_EQ(metrics.prefix_hit, 8);
  EXPECT_EQ(metrics.bank_misses, 1);
  EXPECT_GT(metrics.bank_bytes, 0);
  EXPECT_GT(metrics.steering_time, absl::ZeroDuration());
  EXPECT_LT(metrics.steering_time, metrics.step_time);
  EXPECT_EQ(metrics.last_queues.running, 0);
  EXPECT_EQ(metrics.last_queues.used_blocks, 0);
  EXPECT_EQ(engine->stats().prefix_cache_hit_tokens, 8);
}

// Many threads at the engine's door at once; every accepted request ends once.
TEST_F(EngineTest, ConcurrentCallersEndExactlyOnce) {
  EngineConfig config = Config(24);
  config.max_waiting_requests = 8;
  const auto engine = Make(config);
  std::atomic<int> accepted{0}, ended{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&, t] {
      for (int i = 0; i < 12; ++i) {
        const std::string id = std::to_string(t) + "/" + std::to_string(i);
        auto request = MakeRequest(id, RandomTokens(3 + i, t % 2));
        if (i % 3 == 0) request->plan = OneVector(TinyVector(i % 2), 0.2f, ApplyTo::kAll);
        request->priority = static_cast<Priority>(1 + i % 3);
        const auto sink = SinkOf(*request);
        if (!engine->Submit(std::move(request)).ok()) continue;
        ++accepted;
        if (i % 4 == 1) engine->Abort(id, FinishReason::kCancelled);
        engine->Resume(id);
        engine->stats();
        engine->idle();
        sink->Wait();
        ++ended;
      }
    });
  }
  callers.emplace_back([&] {
    std::vector<ScoreItem> items(10);
    for (size_t i = 0; i < items.size(); ++i) {
      items[i].tokens = RandomTokens(8, static_cast<uint32_t>(i % 3));
      items[i].prompt_length = 5;
    }
    EXPECT_TRUE(engine->Score(std::move(items)).ok());
  });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(accepted, ended);
  EXPECT_GT(accepted, 0);
  engine->Drain(absl::InfiniteFuture());
  EXPECT_EQ(engine->stats().free_blocks, engine->stats().total_blocks);
  EXPECT_TRUE(engine->idle());
}

}  // namespace
}  // namespace trimtab
