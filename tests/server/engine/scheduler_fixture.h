// What the scheduler's tests share: a scheduler over fakes, driven step by step on a clock of its own.
#ifndef TRIMTAB_TESTS_SERVER_ENGINE_SCHEDULER_FIXTURE_H_
#define TRIMTAB_TESTS_SERVER_ENGINE_SCHEDULER_FIXTURE_H_

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/engine/scheduler.h"
#include "tests/server/engine/fake_runner.h"

namespace trimtab {

class SchedulerFixture : public testing::Test {
 protected:
  static constexpr absl::Time kStart = absl::FromUnixSeconds(1'000'000'000);

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

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_ENGINE_SCHEDULER_FIXTURE_H_
