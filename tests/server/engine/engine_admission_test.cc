// What an engine takes in and what it refuses.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/base/error.h"
#include "server/engine/engine.h"
#include "tests/server/engine/engine_fixture.h"
#include "tests/server/engine/engine_testing.h"

namespace trimtab {
namespace {

TEST_F(EngineTest, RefusesWhatItCannotServe) {
  EngineConfig config = Config(4);
  const auto engine = Make(config);
  EXPECT_EQ(Reason(engine->Submit(MakeRequest("a", {1, -5}))), kFieldInvalid);
  EXPECT_EQ(Reason(engine->Submit(MakeRequest("a", RandomTokens(16, 1)))), kKvCacheTooSmall);
  const int64_t context = model_->model->spec().context_length;
  const ErrorDetail detail = GetErrorDetail(engine->Submit(MakeRequest("a", RandomTokens(context, 1))));
  EXPECT_EQ(detail.reason, kPromptTooLong);
  EXPECT_EQ(detail.metadata.at("limit"), std::to_string(context - 1));
  EXPECT_TRUE(engine->idle());
  const Answer answer = RunOne(*engine, MakeRequest("a", RandomTokens(15, 1)));
  EXPECT_EQ(answer.end.reason, FinishReason::kLength) << "the cache's capacity ends the output";
  EXPECT_EQ(answer.tokens.size(), 1);
}

TEST_F(EngineTest, RefusesConfigurationsThatCannotWork) {
  for (auto change : std::vector<std::function<void(EngineConfig&)>>{
           [](EngineConfig& c) { c.block_size = 0; }, [](EngineConfig& c) { c.max_running_requests = 0; },
           [](EngineConfig& c) { c.max_waiting_requests = 0; }, [](EngineConfig& c) { c.max_step_tokens = 0; },
           [](EngineConfig& c) { c.max_step_time = absl::ZeroDuration(); },
           [](EngineConfig& c) { c.max_waiting_per_tenant = -1; },
           [](EngineConfig& c) { c.max_running_per_tenant = -1; }, [](EngineConfig& c) { c.steering_slots = 3; },
           [](EngineConfig& c) { c.kv_cache_bytes = 100; }}) {
    EngineConfig config = Config();
    change(config);
    EXPECT_EQ(Engine::Create(model_, config, clock_, nullptr).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(EngineTest, BoundsTheQueueAndRefusesDuplicateIds) {
  EngineConfig config = Config();
  config.max_waiting_requests = 2;
  const auto engine = Make(config);
  EXPECT_TRUE(engine->idle());
  Gate gate;
  auto first = MakeRequest("first", RandomTokens(5, 1));
  const auto first_sink = SinkOf(*first);
  gate.Hold(*first_sink);
  ASSERT_TRUE(engine->Submit(std::move(first)).ok());
  gate.reached.WaitForNotification();
  EXPECT_FALSE(engine->idle());
  EXPECT_EQ(Reason(engine->Submit(MakeRequest("first", {1}))), kFieldInvalid);
  std::vector<std::shared_ptr<WaitingSink>> sinks;
  for (const char* id : {"second", "third"}) {
    auto request = MakeRequest(id, RandomTokens(5, 1));
    sinks.push_back(SinkOf(*request));
    ASSERT_TRUE(engine->Submit(std::move(request)).ok());
  }
  const absl::Status full = engine->Submit(MakeRequest("fourth", RandomTokens(5, 1)));
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Reason(full), kQueueFull);
  EXPECT_TRUE(GetErrorDetail(full).retry_after.has_value());
  gate.open.Notify();
  first_sink->Wait();
  for (const auto& sink : sinks) EXPECT_TRUE(sink->Wait().status.ok());
  EXPECT_TRUE(RunOne(*engine, MakeRequest("first", RandomTokens(5, 1))).end.status.ok()) << "ids can be used again";
  EXPECT_TRUE(engine->idle());
}

TEST_F(EngineTest, BoundsWhatOneTenantQueuesAndRuns) {
  EngineConfig config = Config();
  config.max_waiting_per_tenant = 2;
  config.max_running_per_tenant = 1;
  const auto engine = Make(config);
  Gate gate;
  auto first = MakeRequest("first", RandomTokens(5, 1));
  first->tenant = "a";
  const auto first_sink = SinkOf(*first);
  gate.Hold(*first_sink);
  ASSERT_TRUE(engine->Submit(std::move(first)).ok());
  gate.reached.WaitForNotification();
  std::vector<std::shared_ptr<WaitingSink>> sinks;
  const auto submit = [&](const std::string& id, const std::string& tenant) {
    auto request = MakeRequest(id, RandomTokens(5, 1));
    request->tenant = tenant;
    const auto sink = SinkOf(*request);
    const absl::Status status = engine->Submit(std::move(request));
    if (status.ok()) sinks.push_back(sink);
    return status;
  };
  EXPECT_TRUE(submit("second", "a").ok());
  EXPECT_TRUE(submit("third", "a").ok());
  const absl::Status refused = submit("fourth", "a");
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Reason(refused), kQuotaExceeded);
  EXPECT_TRUE(GetErrorDetail(refused).retry_after.has_value());
  EXPECT_TRUE(submit("other", "b").ok());
  EXPECT_TRUE(submit("nameless", "").ok());
  gate.open.Notify();
  first_sink->Wait();
  for (const auto& sink : sinks) EXPECT_TRUE(sink->Wait().status.ok());
  EXPECT_EQ(sinks.size(), 4);
  EXPECT_TRUE(submit("again", "a").ok()) << "what ended is not counted";
  EXPECT_TRUE(sinks.back()->Wait().status.ok());
}

}  // namespace
}  // namespace trimtab
