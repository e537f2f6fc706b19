// Random schedules over tiny caches: whatever happens, every request ends exactly once, no block or slot is lost, and
// what is delivered is what the request alone would have given.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "server/engine/scheduler.h"
#include "tests/server/engine/fake_runner.h"

namespace trimtab {
namespace {

class Schedule {
 public:
  explicit Schedule(uint32_t seed)
      : random_(seed),
        config_(MakeConfig()),
        slots_(4 + Below(3)),
        runner_(slots_, config_.num_blocks, config_.block_size),
        scheduler_(config_, slots_, nullptr, nullptr) {
    for (int i = 0; i < 5; ++i) vectors_.push_back(FakeVector(i));
  }

  void Run() {
    for (int step = 0; step < 300; ++step) {
      while (Below(3) == 0) Submit();
      if (Below(8) == 0 && !live_.empty()) {
        scheduler_.Abort(RandomLive(), FinishReason::kCancelled, absl::CancelledError("fuzz"), now_);
      }
      if (Below(4) == 0 && !live_.empty()) {
        FakeSink& sink = *sinks_[RandomLive()];
        sink.ready = !sink.ready;
      }
      Step(/*injecting=*/true);
      if (testing::Test::HasFatalFailure()) return;
    }
    for (auto& [id, sink] : sinks_) sink->ready = true;
    int steps = 0;
    while (!scheduler_.empty()) {
      ASSERT_LT(++steps, 20000) << "no progress";
      ASSERT_GT(Step(/*injecting=*/false), 0) << "nothing planned though nothing is paused";
    }
    ASSERT_EQ(scheduler_.blocks().available(), config_.num_blocks);
    ASSERT_EQ(slots_.references(), 0);
    ASSERT_EQ(scheduler_.tenants(), 0);
    for (const auto& [id, request] : requests_) Check(id, request);
  }

  int64_t preemptions() const { return scheduler_.counters().preemptions; }
  int64_t promotions() const { return scheduler_.counters().promotions; }
  int64_t hits() const { return scheduler_.counters().prefix_hit_tokens; }

 private:
  uint32_t Below(uint32_t bound) { return random_() % bound; }

  SchedulerConfig MakeConfig() {
    SchedulerConfig config;
    config.block_size = 1 + Below(4);
    config.num_blocks = 6 + Below(20);
    config.max_running_requests = 1 + Below(6);
    config.max_step_tokens = 1 + Below(24);
    config.max_context = config.num_blocks * config.block_size - Below(3);
    config.stall_timeout = absl::Milliseconds(5 + Below(50));
    config.prefix_caching = Below(4) != 0;
    if (Below(2) == 0) config.max_step_time = absl::Microseconds(100 + Below(3000));
    if (Below(2) == 0) config.max_running_per_tenant = 1 + Below(3);
    return config;
  }

  const std::string& RandomLive() {
    auto it = live_.begin();
    std::advance(it, Below(static_cast<uint32_t>(live_.size())));
    return *it;
  }

  void Submit() {
    auto request = std::make_unique<Request>();
    request->id = "r" + std::to_string(requests_.size());
    const int64_t longest = config_.max_context - 1;
    const int64_t length = 1 + Below(static_cast<uint32_t>(longest));
    // Few different prompts, so that prefixes are shared.
    const TokenId first = static_cast<TokenId>(Below(3));
    for (int64_t i = 0; i < length; ++i) request->tokens.push_back((first + static_cast<TokenId>(i)) % 23);
    request->prompt_length = length;
    if (length > 1 && Below(4) == 0) {
      request->score = true;
      request->prompt_length = 1 + Below(static_cast<uint32_t>(length - 1));
    }
    request->sampling.max_output_tokens = 1 + Below(30);
    if (Below(2) == 0) request->sampling.end_tokens = {static_cast<TokenId>(Below(23))};
    request->priority = static_cast<Priority>(1 + Below(3));
    request->tenant = std::string(Below(3), 't');
    request->internal = Below(8) == 0;
    if (Below(6) == 0) request->deadline = now_ + absl::Milliseconds(Below(100));
    std::vector<PlannedSteering> entries;
    for (uint32_t count = Below(2) == 0 ? 0 : 1 + Below(4); count > 0; --count) {
      entries.push_back({.vector = vectors_[Below(5)],
                         .objective = "o",
                         .revision = 1,
                         .strength = static_cast<float>(Below(3)) / 2,
                         .apply_to = static_cast<ApplyTo>(1 + Below(3))});
    }
    request->plan = SteeringPlan(std::move(entries));
    auto sink = std::make_shared<FakeSink>();
    request->sink = sink;
    sinks_[request->id] = sink;
    live_.insert(request->id);
    requests_[request->id] = *request;
    scheduler_.Submit(std::move(request), now_);
  }

  // Returns how many items or endings the step had.
  size_t Step(bool injecting) {
    const size_t live = live_.size();
    const StepPlan plan = scheduler_.Plan(now_);
    EXPECT_LE(plan.num_tokens(), config_.max_step_tokens);
    EXPECT_LE(scheduler_.running(), config_.max_running_requests);
    std::map<std::string, int64_t> items_of_tenants;
    for (const StepItem& item : plan.items) {
      const Request& request = *item.sequence->request;
      if (!request.internal) ++items_of_tenants[request.tenant];
    }
    for (const auto& [tenant, items] : items_of_tenants) {
      EXPECT_TRUE(config_.max_running_per_tenant == 0 || items <= config_.max_running_per_tenant) << items;
    }
    EXPECT_TRUE(scheduler_.CheckInvariants().ok()) << scheduler_.CheckInvariants();
    StepResult result = runner_.Execute(plan, [&](const Sequence&) { return injecting && Below(200) == 0; });
    now_ += absl::Milliseconds(1);
    scheduler_.Commit(plan, std::move(result), now_);
    EXPECT_TRUE(scheduler_.CheckInvariants().ok()) << scheduler_.CheckInvariants();
    for (auto it = live_.begin(); it != live_.end();) it = sinks_[*it]->end ? live_.erase(it) : std::next(it);
    return plan.items.size() + live - live_.size();
  }

  void Check(const std::string& id, const Request& request) {
    const FakeSink& sink = *sinks_[id];
    ASSERT_TRUE(sink.end) << id;
    const RequestEnd& end = *sink.end;
    const bool whole = end.reason == FinishReason::kStop || end.reason == FinishReason::kLength;
    ASSERT_EQ(end.status.ok(), whole) << id;
    ASSERT_EQ(end.usage.output_tokens,
              request.score ? request.tokens.size() - request.prompt_length : sink.tokens.size());
    if (request.score) {
      std::vector<float> expected = FakeRunner::ScoresAlone(request), scores;
      for (const ScoredToken& token : end.scored) scores.push_back(token.logprob);
      if (!whole) expected.resize(scores.size());
      ASSERT_EQ(scores, expected) << id;
      return;
    }
    std::vector<TokenId> expected = FakeRunner::Alone(request, config_.max_context);
    if (!whole) {
      ASSERT_LE(sink.tokens.size(), expected.size()) << id;
      expected.resize(sink.tokens.size());
    }
    ASSERT_EQ(sink.tokens, expected) << id;
    if (!whole) return;
    for (size_t i = 0; i < end.doses.size(); ++i) {
      const PlannedSteering& entry = request.plan.entries()[i];
      // An end token's predecessor is computed, the last token of a cut output is not.
      const int64_t computed = request.prompt_length + end.usage.output_tokens - (end.reason == FinishReason::kLength);
      const int64_t steered = std::max<int64_t>(0, computed - entry.steer_from(request.prompt_length));
      ASSERT_EQ(end.doses[i].steered_tokens, entry.strength == 0 ? 0 : steered) << id;
    }
  }

  std::mt19937 random_;
  const SchedulerConfig config_;
  FakeSlots slots_;
  FakeRunner runner_;
  Scheduler scheduler_;
  absl::Time now_ = absl::FromUnixSeconds(1'000'000'000);
  std::vector<std::shared_ptr<const SteeringVector>> vectors_;
  std::map<std::string, Request> requests_;
  std::map<std::string, std::shared_ptr<FakeSink>> sinks_;
  std::set<std::string> live_;
};

TEST(SchedulerFuzzTest, EveryRequestEndsOnceWithItsOwnTokens) {
  int64_t preemptions = 0, promotions = 0, hits = 0;
  for (uint32_t seed = 0; seed < 150; ++seed) {
    SCOPED_TRACE(seed);
    Schedule schedule(seed);
    schedule.Run();
    if (HasFailure()) return;
    preemptions += schedule.preemptions();
    promotions += schedule.promotions();
    hits += schedule.hits();
  }
  // The schedules do reach what they are meant to reach.
  EXPECT_GT(preemptions, 1000);
  EXPECT_GT(promotions, 1000);
  EXPECT_GT(hits, 10000);
}

}  // namespace
}  // namespace trimtab
