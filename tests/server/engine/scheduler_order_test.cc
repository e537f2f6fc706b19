// Who is computed first, and who gets how much: priorities, tenants, long and short prompts.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "tests/server/engine/scheduler_fixture.h"

namespace trimtab {
namespace {

using SchedulerOrderTest = SchedulerFixture;

TEST_F(SchedulerOrderTest, LongPromptsAreChunkedAndDecodingGoesFirst) {
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

TEST_F(SchedulerOrderTest, PriorityThenArrivalDecideWhoIsPrefilledFirst) {
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

TEST_F(SchedulerOrderTest, OrdinaryPromptsPassALongOneInTheMiddleOfIt) {
  Make({.num_blocks = 64, .block_size = 4, .max_step_tokens = 8});
  Submit("long", Prompt(40), {.output = 1});
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"long", 8}}));
  Submit("second", Prompt(6, 2), {.output = 1});
  Submit("first", Prompt(5, 1), {.output = 1});
  Submit("third", Prompt(6, 3), {.output = 1});
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"first", 5}, {"second", 3}}));
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"second", 3}, {"third", 5}}));
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"third", 1}, {"long", 7}})) << "nothing of a step is left unused";
  RunAll();
  for (const char* id : {"long", "first", "second", "third"}) ExpectAsAlone(id);
}

TEST_F(SchedulerOrderTest, ALongPromptIsPassedByAMultipleOfItsLengthAtMost) {
  Make({.num_blocks = 64, .block_size = 4, .max_step_tokens = 4, .prefix_caching = false});
  Submit("long", Prompt(16), {.output = 1});
  int64_t passed = 0;
  for (int64_t i = 0; !sinks_["long"]->end && i < 1000; ++i) {
    // As many short prompts as the server can compute.
    Submit(absl::StrCat("s", i), Prompt(4, 1), {.output = 1});
    for (const auto& [id, rows] : Step()) passed += id == "long" ? 0 : rows;
  }
  EXPECT_GE(passed, kPassing * 16 / 2);
  EXPECT_LE(passed, kPassing * 16 + 8);
  RunAll();
}

TEST_F(SchedulerOrderTest, APromptWhosePrefixIsCachedCountsAsShort) {
  Make({.num_blocks = 64, .block_size = 4, .max_step_tokens = 8});
  Submit("turn", Prompt(40), {.output = 1});
  RunAll();
  Submit("other", Prompt(12, 3), {.output = 1});
  Submit("next turn", Prompt(42), {.output = 1});
  EXPECT_EQ(Step(), (std::map<std::string, int64_t>{{"next turn", 2}, {"other", 6}}));
  RunAll();
}

TEST_F(SchedulerOrderTest, APreemptedAnswerGoesOnBeforeNewPromptsBegin) {
  // Three sequences of up to four blocks each.
  Make({.num_blocks = 8, .block_size = 4, .prefix_caching = false});
  for (const char* id : {"a", "b", "c"}) Submit(id, Prompt(7, static_cast<TokenId>(*id)), {.output = 9});
  while (scheduler_->counters().preemptions == 0) Step();
  ASSERT_FALSE(sinks_["c"]->tokens.empty());
  Submit("new", Prompt(2), {.output = 1});
  bool went_on = false;
  while (!went_on && !scheduler_->empty()) {
    const std::map<std::string, int64_t> rows = Step();
    went_on = rows.count("c") > 0;
    EXPECT_TRUE(went_on || rows.count("new") == 0);
  }
  RunAll();
  for (const char* id : {"a", "b", "c", "new"}) ExpectAsAlone(id);
}

TEST_F(SchedulerOrderTest, TenantsShareEachStepsPrefillWhateverTheLengths) {
  Make({.num_blocks = 256, .block_size = 4, .max_step_tokens = 8, .prefix_caching = false});
  Submit("long", Prompt(200), {.output = 1, .tenant = "a"});
  for (int i = 0; i < 3; ++i) Step();
  for (int i = 0; i < 10; ++i) {
    Submit(absl::StrCat("b", i), Prompt(10, 1), {.output = 1, .tenant = "b"});
  }
  int64_t a = 0, b = 0;
  for (int i = 0; i < 20; ++i) {
    for (const auto& [id, rows] : Step()) (id == "long" ? a : b) += rows;
  }
  EXPECT_EQ(a + b, 160);
  EXPECT_LE(std::abs(a - b), 16);
  RunAll();
}

TEST_F(SchedulerOrderTest, InteractiveRequestsTakeSeatsOfBackgroundOnes) {
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

TEST_F(SchedulerOrderTest, LowerPrioritiesGetTheirShareOfAnOverloadedServer) {
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

TEST_F(SchedulerOrderTest, PriorityIsStrictUntilAClassHasEarnedItsShare) {
  Make({.num_blocks = 64, .block_size = 4, .max_step_tokens = 8, .prefix_caching = false});
  for (int i = 0; i < 4; ++i) {
    Submit(absl::StrCat("b", i), Prompt(8), {.output = 1, .priority = Priority::kBatch});
    Submit(absl::StrCat("i", i), Prompt(8), {.output = 1});
  }
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Step().count(absl::StrCat("i", i)), 1);
  RunAll();
  EXPECT_EQ(scheduler_->counters().promotions, 0);
}

TEST_F(SchedulerOrderTest, ATenantsLongQueueDoesNotHoldAnotherTenantUp) {
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

TEST_F(SchedulerOrderTest, ATenantRunsAtMostItsBoundAndIsPassed) {
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

TEST_F(SchedulerOrderTest, PromptsComeInPiecesThatFitTheStepTimeWhileAnswersGoOn) {
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
  Submit("begins", Prompt(10, 4), {.output = 1});
  Submit("fourth", Prompt(400, 5), {.output = 2});
  const int64_t rows = Step()["fourth"];
  EXPECT_LT(rows, 400) << "an answer begins in this step, and it is protected too";
  RunAll();
  for (const char* id : {"long", "answer", "second", "batch", "third", "begins", "fourth"}) ExpectAsAlone(id);
}

TEST_F(SchedulerOrderTest, OrdinaryPromptsBeginTogetherInOneStep) {
  Make({.num_blocks = 256, .block_size = 4, .max_step_time = absl::Milliseconds(10), .prefix_caching = false});
  for (int i = 0; i < 20; ++i) Submit(absl::StrCat(i), Prompt(16, i), {.output = 2});
  Submit("long", Prompt(400), {.output = 1});
  const std::map<std::string, int64_t> rows = Step();
  EXPECT_EQ(rows.size(), 20) << "nothing is known of how long steps take, and the long one waits";
  EXPECT_EQ(rows.count("long"), 0);
  RunAll();
  for (int i = 0; i < 20; ++i) ExpectAsAlone(absl::StrCat(i));
  ExpectAsAlone("long");
}

}  // namespace
}  // namespace trimtab
