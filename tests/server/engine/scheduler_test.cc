#include "server/engine/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "tests/server/engine/fake_runner.h"

namespace trimtab {
namespace {

constexpr absl::Time kStart = absl::FromUnixSeconds(1'000'000'000);

class SchedulerTest : public testing::Test {
 protected:
  void Make(SchedulerConfig config, int slots = 8) {
    if (config.max_context == 0) config.max_context = config.num_blocks * config.block_size;
    config_ = config;
    slots_.emplace(slots);
    runner_.emplace(*slots_, config.num_blocks, config.block_size);
    scheduler_.emplace(config, *slots_, nullptr, nullptr);
  }

  struct Options {
    int64_t output = 4;
    SteeringPlan plan;
    Priority priority = Priority::kInteractive;
    std::string tenant;
    absl::Time deadline = absl::InfiniteFuture();
    int64_t score_from = 0;  // > 0: a score request with so many prompt tokens
  };
  void Submit(const std::string& id, std::vector<TokenId> tokens, Options options) {
    auto request = std::make_unique<Request>();
    request->id = id;
    request->prompt_length = options.score_from > 0 ? options.score_from : static_cast<int64_t>(tokens.size());
    request->score = options.score_from > 0;
    request->tokens = std::move(tokens);
    request->sampling.max_output_tokens = options.output;
    request->plan = options.plan;
    request->priority = options.priority;
    request->tenant = options.tenant;
    request->deadline = options.deadline;
    auto sink = std::make_shared<FakeSink>();
    request->sink = sink;
    sinks_[id] = sink;
    requests_[id] = *request;
    scheduler_->Submit(std::move(request), now_);
  }
  void Submit(const std::string& id, std::vector<TokenId> tokens) { Submit(id, std::move(tokens), Options()); }

  // One step; returns id -> rows computed.
  std::map<std::string, int64_t> Step() {
    const StepPlan plan = scheduler_->Plan(now_);
    EXPECT_LE(plan.num_tokens(), config_.max_step_tokens);
    EXPECT_TRUE(scheduler_->CheckInvariants().ok()) << scheduler_->CheckInvariants();
    std::map<std::string, int64_t> rows;
    for (const StepItem& item : plan.items) rows[item.sequence->request->id] = item.length;
    StepResult result = runner_->Execute(plan);
    now_ += absl::Milliseconds(10);
    scheduler_->Commit(plan, std::move(result), now_);
    EXPECT_TRUE(scheduler_->CheckInvariants().ok()) << scheduler_->CheckInvariants();
    return rows;
  }
  // Steps until `id` has ended; how many of them.
  int64_t StepsUntilEnd(const std::string& id) {
    int64_t steps = 0;
    while (!sinks_[id]->end && steps < 10000) {
      Step();
      ++steps;
    }
    return steps;
  }
  void RunAll() {
    for (int i = 0; i < 10000 && !scheduler_->empty(); ++i) Step();
    ASSERT_TRUE(scheduler_->empty());
    EXPECT_EQ(scheduler_->blocks().available(), config_.num_blocks);
    EXPECT_EQ(slots_->references(), 0);
  }
  void ExpectAsAlone(const std::string& id) {
    ASSERT_TRUE(sinks_[id]->end) << id;
    EXPECT_TRUE(sinks_[id]->end->status.ok()) << id;
    if (requests_[id].score) {
      std::vector<float> scores;
      for (const ScoredToken& token : sinks_[id]->end->scored) scores.push_back(token.logprob);
      EXPECT_EQ(scores, FakeRunner::ScoresAlone(requests_[id])) << id;
    } else {
      EXPECT_EQ(sinks_[id]->tokens, FakeRunner::Alone(requests_[id], config_.max_context)) << id;
    }
  }

  static std::vector<TokenId> Prompt(int64_t length, TokenId first = 0) {
    std::vector<TokenId> tokens(length);
    std::iota(tokens.begin(), tokens.end(), first);
    return tokens;
  }

  SchedulerConfig config_;
  absl::Time now_ = kStart;
  std::optional<FakeSlots> slots_;
  std::optional<FakeRunner> runner_;
  std::optional<Scheduler> scheduler_;
  std::map<std::string, std::shared_ptr<FakeSink>> sinks_;
  std::map<std::string, Request> requests_;
};

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

TEST_F(SchedulerTest, LongPromptsAreChunkedAndDecodingGoesFirst) {
  Make({.num_blocks = 32, .block_size = 4, .max_step_tokens = 8});
  Submit("short", Prompt(3), {.output = 6});
  Step();
  Submit("long", Prompt(20, 1));
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"short", 1}, {"long", 7}}));
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"short", 1}, {"long", 7}}));
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"short", 1}, {"long", 6}}));
  EXPECT_EQ(sinks_["long"]->tokens.size(), 1);
  RunAll();
  ExpectAsAlone("short");
  ExpectAsAlone("long");
}

TEST_F(SchedulerTest, PriorityThenArrivalDecideWhoIsPrefilledFirst) {
  Make({.num_blocks = 32, .block_size = 4, .max_step_tokens = 4, .prefix_caching = false});
  Submit("background", Prompt(4), {.priority = Priority::kBackground});
  Submit("batch", Prompt(4), {.priority = Priority::kBatch});
  Submit("first", Prompt(4));
  Submit("second", Prompt(4));
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"first", 4}}));
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"first", 1}, {"second", 3}}));
  RunAll();
  for (const char* id : {"background", "batch", "first", "second"}) ExpectAsAlone(id);
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

TEST_F(SchedulerTest, InteractiveRequestsTakeSeatsOfBackgroundOnes) {
  Make({.num_blocks = 32, .block_size = 4, .max_running_requests = 2});
  Submit("b1", Prompt(4), {.output = 8, .priority = Priority::kBackground});
  Submit("b2", Prompt(4, 1), {.output = 8, .priority = Priority::kBackground});
  Step();
  Submit("i", Prompt(4, 2));
  const std::map<std::string, int64_t> rows = Step();
  EXPECT_EQ(rows.count("i"), 1);
  EXPECT_EQ(rows.count("b1"), 1);
  EXPECT_EQ(rows.count("b2"), 0);
  Submit("j", Prompt(4, 3), {.priority = Priority::kBackground});
  EXPECT_EQ(Step().count("j"), 0) << "same priority waits";
  RunAll();
  for (const char* id : {"b1", "b2", "i", "j"}) ExpectAsAlone(id);
}

TEST_F(SchedulerTest, AdmitsOnlyWhatFitsInMemory) {
  Make({.num_blocks = 8, .block_size = 4, .prefix_caching = false});
  Submit("a", Prompt(20), {.output = 2});
  Submit("b", Prompt(16, 1), {.output = 2});
  Submit("c", Prompt(4, 2), {.output = 2});
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"a", 20}})) << "c must not pass b";
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

TEST_F(SchedulerTest, LowerPrioritiesGetTheirShareOfAnOverloadedServer) {
  for (const Priority priority : {Priority::kBatch, Priority::kBackground}) {
    SCOPED_TRACE(static_cast<int>(priority));
    Make(
        {.num_blocks = 64, .block_size = 4, .max_running_requests = 4, .max_step_tokens = 16, .prefix_caching = false});
    // More interactive work than the server can do, before it and all the time.
    int64_t next = 0, steps = 0;
    const auto flood = [&] {
      while (scheduler_->waiting() < 20) Submit(absl::StrCat("i", next++), Prompt(8), {.output = 4});
    };
    flood();
    Submit("starved", Prompt(8), {.output = 4, .priority = priority});
    while (!sinks_["starved"]->end && steps < 1000) {
      flood();
      Step();
      ++steps;
    }
    // Its prompt of 8 tokens is earned by 8 or 32 times as many, about 10 of which are computed per step.
    const int64_t earned = 8 * (priority == Priority::kBatch ? 8 : 32) / 10;
    EXPECT_GT(steps, earned / 2);
    EXPECT_LT(steps, 2 * earned + 20);
    ExpectAsAlone("starved");
  }
}

TEST_F(SchedulerTest, PriorityIsStrictUntilAClassHasEarnedItsShare) {
  Make({.num_blocks = 64, .block_size = 4, .max_step_tokens = 8, .prefix_caching = false});
  for (int i = 0; i < 4; ++i) {
    Submit(absl::StrCat("b", i), Prompt(8), {.output = 1, .priority = Priority::kBatch});
    Submit(absl::StrCat("i", i), Prompt(8), {.output = 1});
  }
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Step().count(absl::StrCat("i", i)), 1);
  RunAll();
  EXPECT_EQ(scheduler_->counters().promotions, 0);
}

TEST_F(SchedulerTest, ATenantsLongQueueDoesNotHoldAnotherTenantUp) {
  Make({.num_blocks = 64, .block_size = 4, .max_running_requests = 1, .prefix_caching = false});
  for (int i = 0; i < 20; ++i) Submit(absl::StrCat("many", i), Prompt(8), {.output = 4, .tenant = "a"});
  Step();
  for (int i = 0; i < 2; ++i) Submit(absl::StrCat("few", i), Prompt(8), {.output = 4, .tenant = "b"});
  EXPECT_EQ(scheduler_->tenants(), 2);
  EXPECT_LE(StepsUntilEnd("few0"), 4 + 3) << "after the one that runs";
  EXPECT_LE(StepsUntilEnd("few1"), 2 * 4) << "they take turns";
  EXPECT_FALSE(sinks_["many4"]->end);
  RunAll();
  EXPECT_EQ(scheduler_->tenants(), 0);
}

TEST_F(SchedulerTest, ATenantRunsAtMostItsBoundAndIsPassed) {
  Make({.num_blocks = 64, .block_size = 4, .max_running_per_tenant = 2, .prefix_caching = false});
  for (int i = 0; i < 5; ++i) Submit(absl::StrCat("a", i), Prompt(5), {.output = 3, .tenant = "a"});
  Submit("b0", Prompt(5, 1), {.output = 3, .tenant = "b"});
  Submit("none", Prompt(5, 2), {.output = 3});
  const std::map<std::string, int64_t> rows = Step();
  EXPECT_EQ(rows.size(), 4);
  for (const char* id : {"a0", "a1", "b0", "none"}) EXPECT_EQ(rows.count(id), 1) << id;
  for (int i = 0; i < 3; ++i) {
    Step();
    EXPECT_LE(scheduler_->running(), 4);
  }
  RunAll();
  for (int i = 0; i < 5; ++i) ExpectAsAlone(absl::StrCat("a", i));
}

TEST_F(SchedulerTest, PromptsComeInPiecesThatFitTheStepTimeWhileAnswersGoOn) {
  // Every step takes 10 ms here: a decoding one of one row and a prefilling one alike.
  Make({.num_blocks = 256, .block_size = 4, .max_step_time = absl::Milliseconds(10)});
  Submit("long", Prompt(400), {.output = 2});
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"long", 400}})) << "nobody waits for this step";
  RunAll();
  Submit("answer", Prompt(3), {.output = 60});
  Step();
  Step();
  Submit("second", Prompt(400, 1), {.output = 2});
  int64_t before = 0, pieces = 0, largest = 0;
  while (sinks_["second"]->tokens.empty()) {
    const int64_t rows = Step()["second"];
    largest = std::max(largest, rows);
    before += rows;
    ++pieces;
  }
  EXPECT_EQ(before, 400);
  EXPECT_LT(largest, 400);
  EXPECT_GT(pieces, 2);
  Submit("batch", Prompt(3, 2), {.output = 60, .priority = Priority::kBatch});
  StepsUntilEnd("answer");
  Submit("third", Prompt(400, 3), {.output = 2});
  EXPECT_EQ(Step()["third"], 400) << "only interactive answers are protected";
  RunAll();
  for (const char* id : {"long", "answer", "second", "batch", "third"}) ExpectAsAlone(id);
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
