#include "server/engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "tests/server/engine/scheduler_fixture.h"

namespace trimtab {
namespace {

using SchedulerTest = SchedulerFixture;

TEST_F(SchedulerTest, GeneratesUpToTheLimitAndReportsUsageAndTiming) {
  Make({.num_blocks = 8, .block_size = 4});
  Submit("a", Prompt(5));
  RunAll();
  ExpectAsAlone("a");
  const RequestEnd& end = *sinks_["a"]->end;
  EXPECT_EQ(end.reason, FinishReason::kLength);
  EXPECT_EQ(end.usage.prompt_tokens, 5);
  EXPECT_EQ(end.usage.output_tokens, 4);
  EXPECT_EQ(end.usage.cached_prompt_tokens, 0);
  EXPECT_EQ(end.timing.queue, absl::ZeroDuration());
  EXPECT_EQ(end.timing.prefill, absl::Milliseconds(10));
  EXPECT_EQ(end.timing.decode, absl::Milliseconds(30));
  EXPECT_EQ(runner_->rows_computed, 8) << "the last token is not computed";
}

TEST_F(SchedulerTest, EndTokenEndsAndIsNotDelivered) {
  Make({.num_blocks = 8, .block_size = 4});
  Request alone;
  alone.tokens = Prompt(5);
  alone.prompt_length = 5;
  alone.sampling.max_output_tokens = 10;
  const std::vector<TokenId> tokens = FakeRunner::Alone(alone, 32);
  auto request = std::make_unique<Request>(alone);
  request->id = "a";
  request->sampling.end_tokens = {tokens[3]};
  auto sink = std::make_shared<FakeSink>();
  request->sink = sink;
  scheduler_->Submit(std::move(request), now_);
  RunAll();
  EXPECT_EQ(sink->end->reason, FinishReason::kStop);
  EXPECT_EQ(std::count(sink->tokens.begin(), sink->tokens.end(), tokens[3]), 0);
  EXPECT_EQ(sink->end->usage.output_tokens, static_cast<int64_t>(sink->tokens.size()));
}

TEST_F(SchedulerTest, ContextLengthEndsTheOutput) {
  Make({.num_blocks = 8, .block_size = 4, .max_context = 9});
  Submit("a", Prompt(6), {.output = 100});
  RunAll();
  ExpectAsAlone("a");
  EXPECT_EQ(sinks_["a"]->tokens.size(), 3);
  EXPECT_EQ(sinks_["a"]->end->reason, FinishReason::kLength);
}

TEST_F(SchedulerTest, PreemptsTheNewestOfTheLowestPriority) {
  // 8 blocks: four sequences of two blocks each fill the cache; all need a third one.
  Make({.num_blocks = 8, .block_size = 4, .prefix_caching = false});
  Submit("old", Prompt(7), {.output = 9});
  Submit("new", Prompt(7, 1), {.output = 9});
  Submit("background old", Prompt(7, 2), {.output = 9, .priority = Priority::kBackground});
  Submit("background new", Prompt(7, 3), {.output = 9, .priority = Priority::kBackground});
  Step();
  EXPECT_EQ(scheduler_->running(), 4);
  Step();
  EXPECT_EQ(scheduler_->counters().preemptions, 0);
  const std::map<std::string, int64_t> rows = Step();
  EXPECT_EQ(rows.count("old"), 1);
  EXPECT_EQ(rows.count("new"), 1);
  EXPECT_EQ(rows.count("background new"), 0);
  EXPECT_EQ(scheduler_->counters().preemptions, 1);
  RunAll();
  for (const char* id : {"old", "new", "background old", "background new"}) ExpectAsAlone(id);
}

TEST_F(SchedulerTest, AdmitsOnlyWhatFitsInMemory) {
  Make({.num_blocks = 8, .block_size = 4, .prefix_caching = false});
  Submit("a", Prompt(16), {.output = 2});
  Submit("b", Prompt(20, 1), {.output = 2});
  Submit("c", Prompt(4, 2), {.output = 2, .priority = Priority::kBatch});
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"a", 16}})) << "c must not pass b";
  RunAll();
  EXPECT_EQ(scheduler_->counters().preemptions, 0);
  for (const char* id : {"a", "b", "c"}) ExpectAsAlone(id);
}

TEST_F(SchedulerTest, SharesPrefixesAndComputesAtLeastOneToken) {
  Make({.num_blocks = 32, .block_size = 4});
  Submit("a", Prompt(12));
  RunAll();
  runner_->rows_computed = 0;
  Submit("b", Prompt(12));
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"b", 4}}))
      << "two blocks are shared, the third has the last token";
  RunAll();
  Submit("c", Prompt(13));
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"c", 1}}));
  RunAll();
  EXPECT_EQ(sinks_["b"]->end->usage.cached_prompt_tokens, 8);
  EXPECT_EQ(sinks_["c"]->end->usage.cached_prompt_tokens, 12);
  EXPECT_EQ(scheduler_->counters().prefix_query_tokens, 12 + 12 + 13);
  EXPECT_EQ(scheduler_->counters().prefix_hit_tokens, 20);
  for (const char* id : {"a", "b", "c"}) ExpectAsAlone(id);
}

TEST_F(SchedulerTest, RequestsThatArriveTogetherComputeASharedPrefixOnce) {
  Make({.num_blocks = 32, .block_size = 4});
  for (const char* id : {"a", "b", "c"}) Submit(id, Prompt(17), {.output = 2});
  Submit("other", Prompt(17, 3), {.output = 2});
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"a", 17}, {"other", 17}}));
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"a", 1}, {"b", 1}, {"c", 1}, {"other", 1}}));
  RunAll();
  for (const char* id : {"a", "b", "c", "other"}) ExpectAsAlone(id);
}

TEST_F(SchedulerTest, GeneratedBlocksServeTheNextTurn) {
  Make({.num_blocks = 32, .block_size = 4});
  Submit("a", Prompt(6), {.output = 8});
  RunAll();
  std::vector<TokenId> turn = Prompt(6);
  turn.insert(turn.end(), sinks_["a"]->tokens.begin(), sinks_["a"]->tokens.end());
  Submit("b", turn);
  RunAll();
  EXPECT_EQ(sinks_["b"]->end->usage.cached_prompt_tokens, 12);
  ExpectAsAlone("b");
}

TEST_F(SchedulerTest, TakesOverWhatOthersComputeOfItsPrompt) {
  Make({.num_blocks = 32, .block_size = 4, .max_step_tokens = 5});
  std::vector<TokenId> shared = Prompt(16), longer = shared, shorter = shared;
  for (TokenId token = 0; token < 20; ++token) longer.push_back(token);
  shorter.push_back(7);
  Submit("longer", longer, {.output = 2});
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"longer", 5}}));
  Submit("shorter", shorter, {.output = 1});
  int64_t rows = 5;
  while (!sinks_["shorter"]->end) {
    EXPECT_EQ(rows, 5) << "the shorter one goes first";
    rows += Step()["longer"];
  }
  while (sinks_["longer"]->tokens.empty()) rows += Step()["longer"];
  EXPECT_EQ(rows, 5 + 2 + 20) << "of the shared blocks, only what both computed in one step is computed twice";
  RunAll();
  EXPECT_EQ(sinks_["shorter"]->end->usage.cached_prompt_tokens, 4);
  EXPECT_EQ(sinks_["longer"]->end->usage.cached_prompt_tokens, 9);
  EXPECT_EQ(scheduler_->counters().prefix_query_tokens, 36 + 17);
  EXPECT_EQ(scheduler_->counters().prefix_hit_tokens, 4 + 9);
  ExpectAsAlone("longer");
  ExpectAsAlone("shorter");
}

TEST_F(SchedulerTest, SteeringDecidesWhatIsShared) {
  const auto vector = FakeVector(1);
  struct Case {
    SteeringPlan first, second;
    int64_t cached;
  };
  const SteeringPlan none, zero = FakePlan({{vector, 0}}, ApplyTo::kAll), all = FakePlan({{vector, 1}}, ApplyTo::kAll),
                           weaker = FakePlan({{vector, 0.5f}}, ApplyTo::kAll),
                           last = FakePlan({{vector, 1}}, ApplyTo::kFromLastPrompt),
                           response = FakePlan({{vector, 1}}, ApplyTo::kResponse);
  for (const Case& c : {Case{none, zero, 12}, Case{none, all, 0}, Case{all, none, 0}, Case{all, all, 12},
                        Case{all, weaker, 0}, Case{none, last, 12}, Case{last, response, 12}}) {
    Make({.num_blocks = 32, .block_size = 4});
    Submit("a", Prompt(14), {.plan = c.first});
    RunAll();
    Submit("b", Prompt(14), {.plan = c.second});
    RunAll();
    EXPECT_EQ(sinks_["b"]->end->usage.cached_prompt_tokens, c.cached);
    ExpectAsAlone("a");
    ExpectAsAlone("b");
  }
}

TEST_F(SchedulerTest, WaitsForSteeringSlotsWithoutHoldingUnsteeredRequestsUp) {
  Make({.num_blocks = 32, .block_size = 4}, /*slots=*/4);
  const auto plan = [](double angle) {
    return FakePlan({{FakeVector(angle), 1}, {FakeVector(angle + 1), 1}, {FakeVector(angle + 2), 1}}, ApplyTo::kAll);
  };
  Submit("a", Prompt(4), {.plan = plan(0)});
  Submit("b", Prompt(4), {.plan = plan(10)});
  Submit("c", Prompt(4), {.plan = FakePlan({{FakeVector(0), 1}}, ApplyTo::kAll)});
  Submit("d", Prompt(4));
  const std::map<std::string, int64_t> rows = Step();
  EXPECT_EQ(rows.count("a"), 1);
  EXPECT_EQ(rows.count("b"), 0);
  EXPECT_EQ(rows.count("c"), 0) << "must not pass b, though its vector is loaded";
  EXPECT_EQ(rows.count("d"), 1);
  RunAll();
  for (const char* id : {"a", "b", "c", "d"}) ExpectAsAlone(id);
}

TEST_F(SchedulerTest, StrengthsOfOneVectorShareASlot) {
  Make({.num_blocks = 64, .block_size = 4, .prefix_caching = false}, /*slots=*/4);
  for (int i = 0; i < 16; ++i) {
    Submit(absl::StrCat(i), Prompt(4),
           {.plan = FakePlan({{FakeVector(1), 0.1f * static_cast<float>(i + 1)}}, ApplyTo::kAll)});
  }
  EXPECT_EQ(Step().size(), 16) << "all in one step, with one slot";
  EXPECT_EQ(slots_->references(), 16);
  RunAll();
  for (int i = 0; i < 16; ++i) ExpectAsAlone(absl::StrCat(i));
}

TEST_F(SchedulerTest, CancelTakesEffectBeforeTheNextStep) {
  Make({.num_blocks = 8, .block_size = 4});
  Submit("a", Prompt(4), {.output = 8});
  Submit("b", Prompt(4, 1), {.output = 8});
  Step();
  scheduler_->Abort("a", FinishReason::kCancelled, absl::CancelledError("gone"), now_);
  EXPECT_EQ(sinks_["a"]->end->reason, FinishReason::kCancelled);
  scheduler_->Abort("a", FinishReason::kCancelled, absl::CancelledError("gone"), now_);
  scheduler_->Abort("never", FinishReason::kCancelled, absl::CancelledError("gone"), now_);
  EXPECT_EQ(Step().count("a"), 0);
  RunAll();
  ExpectAsAlone("b");
}

TEST_F(SchedulerTest, DeadlinesEndRunningAndWaitingRequests) {
  Make({.num_blocks = 8, .block_size = 4, .max_running_requests = 1});
  Submit("running", Prompt(4), {.output = 20, .deadline = kStart + absl::Milliseconds(35)});
  Submit("waiting", Prompt(4), {.deadline = kStart + absl::Milliseconds(15)});
  Step();
  EXPECT_EQ(scheduler_->NextEvent(), kStart + absl::Milliseconds(15));
  RunAll();
  EXPECT_EQ(sinks_["running"]->end->reason, FinishReason::kDeadline);
  EXPECT_EQ(sinks_["running"]->end->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(sinks_["running"]->tokens.size(), 4);
  EXPECT_EQ(sinks_["waiting"]->end->reason, FinishReason::kDeadline);
  EXPECT_TRUE(sinks_["waiting"]->tokens.empty());
}

TEST_F(SchedulerTest, PausedSequencesKeepTheirBlocksResumeAndStallOut) {
  Make({.num_blocks = 8, .block_size = 4, .stall_timeout = absl::Seconds(1)});
  Submit("a", Prompt(5), {.output = 6});
  Submit("b", Prompt(5, 1), {.output = 6});
  Step();
  sinks_["a"]->ready = sinks_["b"]->ready = false;
  EXPECT_TRUE(Step().empty());
  EXPECT_EQ(scheduler_->running(), 2);
  EXPECT_EQ(scheduler_->blocks().available(), 4);
  EXPECT_EQ(scheduler_->NextEvent(), kStart + absl::Milliseconds(10) + absl::Seconds(1));
  sinks_["a"]->ready = true;
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"a", 1}})) << "nothing is computed again";
  now_ += absl::Seconds(1);
  RunAll();
  ExpectAsAlone("a");
  EXPECT_EQ(sinks_["b"]->end->reason, FinishReason::kCancelled);
  EXPECT_EQ(sinks_["b"]->tokens.size(), 1);
}

TEST_F(SchedulerTest, PausedSequencesYieldMemoryAndSeats) {
  Make({.num_blocks = 4, .block_size = 4, .max_running_requests = 1});
  Submit("slow", Prompt(10), {.output = 3});
  Step();
  sinks_["slow"]->ready = false;
  Submit("next", Prompt(10, 1), {.output = 3});
  EXPECT_EQ(Step().count("next"), 1);
  sinks_["slow"]->ready = true;
  RunAll();
  ExpectAsAlone("slow");
  ExpectAsAlone("next");
}

TEST_F(SchedulerTest, FailedItemsEndAloneAndPublishNothing) {
  Make({.num_blocks = 16, .block_size = 4});
  Submit("bad", Prompt(9));
  Submit("good", Prompt(9, 1));
  const StepPlan plan = scheduler_->Plan(now_);
  scheduler_->Commit(plan, runner_->Execute(plan, [](const Sequence& s) { return s.request->id == "bad"; }), now_);
  EXPECT_EQ(sinks_["bad"]->end->reason, FinishReason::kError);
  EXPECT_EQ(sinks_["bad"]->end->status.code(), absl::StatusCode::kInternal);
  Submit("again", Prompt(9));
  RunAll();
  EXPECT_EQ(sinks_["again"]->end->usage.cached_prompt_tokens, 0);
  ExpectAsAlone("good");
  ExpectAsAlone("again");
}

TEST_F(SchedulerTest, ScoresContinuationsInChunksAndSharesPrompts) {
  Make({.num_blocks = 32, .block_size = 4, .max_step_tokens = 5});
  Submit("a", Prompt(20), {.score_from = 13});
  RunAll();
  Submit("b", Prompt(19), {.score_from = 13});
  Submit("one", Prompt(2), {.score_from = 1});
  RunAll();
  for (const char* id : {"a", "b", "one"}) ExpectAsAlone(id);
  EXPECT_EQ(sinks_["a"]->end->scored.size(), 7);
  EXPECT_EQ(sinks_["b"]->end->usage.cached_prompt_tokens, 12) << "position 12 is needed for its logits";
  EXPECT_EQ(sinks_["a"]->end->reason, FinishReason::kStop);
}

TEST_F(SchedulerTest, DosesCountEachPositionOnceWhateverIsRecomputedOrShared) {
  const auto vector = FakeVector(1);
  const SteeringPlan all = FakePlan({{vector, 1}, {vector, 0}}, ApplyTo::kAll);
  const SteeringPlan last = FakePlan({{vector, 1}}, ApplyTo::kFromLastPrompt);
  Make({.num_blocks = 8, .block_size = 4});
  Submit("old", Prompt(8), {.output = 10, .plan = all});
  Submit("new", Prompt(8, 1), {.output = 10, .plan = last});
  RunAll();
  EXPECT_GT(scheduler_->counters().preemptions, 0);
  Submit("shared", Prompt(8), {.output = 10, .plan = all});
  RunAll();
  // 8 + 10 tokens, the last one is not computed.
  for (const char* id : {"old", "shared"}) {
    ASSERT_EQ(sinks_[id]->end->doses.size(), 2);
    EXPECT_EQ(sinks_[id]->end->doses[0].steered_tokens, 17) << id;
    EXPECT_EQ(sinks_[id]->end->doses[0].mean_relative_dose, 1) << id;
    EXPECT_EQ(sinks_[id]->end->doses[1].steered_tokens, 0) << id;
  }
  EXPECT_EQ(sinks_["new"]->end->doses[0].steered_tokens, 10);
}

TEST_F(SchedulerTest, AbortAllEndsEverything) {
  Make({.num_blocks = 8, .block_size = 4, .max_running_requests = 1});
  Submit("a", Prompt(4));
  Submit("b", Prompt(4));
  Step();
  scheduler_->AbortAll(FinishReason::kCancelled, absl::UnavailableError("down"), now_);
  EXPECT_TRUE(scheduler_->empty());
  EXPECT_EQ(sinks_["a"]->end->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(sinks_["b"]->end->status.code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace trimtab
