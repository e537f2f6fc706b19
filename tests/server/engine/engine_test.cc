#include "server/engine/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <new>
#include <thread>

#include "absl/synchronization/notification.h"
#include "server/base/error.h"
#include "server/engine/engine_metrics.h"
#include "tests/server/engine/engine_fixture.h"
#include "tests/server/engine/engine_testing.h"

namespace trimtab {
namespace {

void ExpectEqual(const Answer& answer, const Answer& expected, float tolerance) {
  EXPECT_EQ(answer.tokens, expected.tokens);
  EXPECT_EQ(answer.end.reason, expected.end.reason);
  ASSERT_EQ(answer.logprobs.size(), expected.logprobs.size());
  for (size_t i = 0; i < expected.logprobs.size(); ++i) {
    EXPECT_NEAR(answer.logprobs[i], expected.logprobs[i], tolerance);
  }
}

TEST_F(EngineTest, GreedyTokensAreThoseOfDenseForwardPasses) {
  const auto engine = Make(Config());
  for (const SteeringPlan& plan :
       {SteeringPlan(), OneVector(TinyVector(1), 0.4f, ApplyTo::kAll),
        OneVector(TinyVector(1), 0.4f, ApplyTo::kFromLastPrompt), OneVector(TinyVector(2), 0.4f, ApplyTo::kResponse)}) {
    const std::vector<TokenId> prompt = RandomTokens(9, 5);
    const Answer answer = RunOne(*engine, MakeRequest("a", prompt, plan));
    EXPECT_EQ(answer.tokens, DenseGreedy(*model_, prompt, plan, 12));
    EXPECT_EQ(answer.end.reason, FinishReason::kLength);
    EXPECT_EQ(answer.end.usage.output_tokens, 12);
  }
}

TEST_F(EngineTest, MixedBatchGivesEachRequestWhatItGetsAlone) {
  std::vector<Answer> alone;
  for (std::unique_ptr<Request>& request : MixedRequests()) {
    const auto engine = Make(Config());
    alone.push_back(RunOne(*engine, std::move(request)));
  }
  const auto engine = Make(Config());
  const std::vector<Answer> together = RunAll(*engine, MixedRequests());
  for (size_t i = 0; i < alone.size(); ++i) {
    SCOPED_TRACE(i);
    ASSERT_TRUE(alone[i].end.status.ok());
    ExpectEqual(together[i], alone[i], 2e-4f);
    ASSERT_EQ(together[i].end.doses.size(), alone[i].end.doses.size());
    for (size_t j = 0; j < alone[i].end.doses.size(); ++j) {
      EXPECT_EQ(together[i].end.doses[j].steered_tokens, alone[i].end.doses[j].steered_tokens);
      EXPECT_NEAR(together[i].end.doses[j].mean_relative_dose, alone[i].end.doses[j].mean_relative_dose, 1e-3);
    }
  }
}

TEST_F(EngineTest, ChunksAndPreemptionChangeNothing) {
  const auto whole = Make(Config());
  const std::vector<Answer> expected = RunAll(*whole, MixedRequests());
  EngineConfig config = Config();
  config.max_step_tokens = 3;
  const auto chunked = Make(config);
  const std::vector<Answer> chunks = RunAll(*chunked, MixedRequests());
  const auto tight = Make(Config(/*blocks=*/14));
  const std::vector<Answer> preempted = RunAll(*tight, MixedRequests());
  EXPECT_GT(tight->stats().preemptions, 0);
  for (size_t i = 0; i < expected.size(); ++i) {
    SCOPED_TRACE(i);
    ExpectEqual(chunks[i], expected[i], 2e-4f);
    ExpectEqual(preempted[i], expected[i], 2e-4f);
  }
}

TEST_F(EngineTest, StrengthZeroIsBitIdenticalToUnsteered) {
  const auto run = [&](const SteeringPlan& plan, bool among_others) {
    const auto engine = Make(Config(128));
    std::vector<std::unique_ptr<Request>> requests;
    if (among_others) requests = MixedRequests();
    auto request = MakeRequest("twin", RandomTokens(17, 3), plan);
    request->sampling.logprobs = 5;
    requests.push_back(std::move(request));
    return RunAll(*engine, std::move(requests)).back();
  };
  const SteeringPlan zero = OneVector(TinyVector(1), 0, ApplyTo::kAll);
  for (const bool among_others : {false, true}) {
    const Answer plain = run({}, among_others), twin = run(zero, among_others);
    EXPECT_EQ(twin.tokens, plain.tokens);
    EXPECT_EQ(twin.logprobs, plain.logprobs) << "bit by bit";
    ASSERT_EQ(twin.end.doses.size(), 1);
    EXPECT_EQ(twin.end.doses[0].steered_tokens, 0);
  }
}

TEST_F(EngineTest, SeedsReproduceWhateverElseRuns) {
  const auto request = [](uint64_t seed) {
    auto request = MakeRequest("seeded " + std::to_string(seed), RandomTokens(9, 4));
    request->sampling.temperature = 1.3f;
    request->sampling.seed = seed;
    return request;
  };
  const auto engine = Make(Config());
  const Answer alone = RunOne(*engine, request(7));
  std::vector<std::unique_ptr<Request>> requests = MixedRequests();
  requests.push_back(request(7));
  requests.push_back(request(8));
  const std::vector<Answer> together = RunAll(*engine, std::move(requests));
  EXPECT_EQ(together[together.size() - 2].tokens, alone.tokens);
  EXPECT_NE(together.back().tokens, alone.tokens);
}

TEST_F(EngineTest, ReportsTheDoseThatWasApplied) {
  const auto engine = Make(Config());
  for (const auto& [apply_to, steered] :
       {std::pair{ApplyTo::kAll, 9 + 11}, std::pair{ApplyTo::kFromLastPrompt, 12}, std::pair{ApplyTo::kResponse, 11}}) {
    const Answer answer =
        RunOne(*engine, MakeRequest("a", RandomTokens(9, 5), OneVector(TinyVector(1), 0.25f, apply_to)));
    ASSERT_EQ(answer.end.doses.size(), 1);
    EXPECT_EQ(answer.end.doses[0].steered_tokens, steered) << "the last token is not computed";
    EXPECT_NEAR(answer.end.doses[0].mean_relative_dose, 0.25, 1e-3) << "relative strength is the dose";
  }
}

TEST_F(EngineTest, VectorsOfSeveralSitesSteerOneRequest) {
  const auto engine = Make(Config());
  const auto at = [](uint32_t seed, Site site, float strength) {
    return PlannedSteering{.vector = TinyVector(seed, StrengthMode::kRelative, site),
                           .objective = "o" + std::to_string(seed),
                           .strength = strength,
                           .apply_to = ApplyTo::kAll};
  };
  const SteeringPlan plan(
      {at(1, Site::kBlockOutput, 0.2f), at(2, Site::kMlpOutput, 0.6f), at(3, Site::kAttentionOutput, -0.4f)});
  const std::vector<TokenId> prompt = RandomTokens(9, 5);
  const Answer answer = RunOne(*engine, MakeRequest("a", prompt, plan));
  ASSERT_TRUE(answer.end.status.ok()) << answer.end.status;
  EXPECT_EQ(answer.tokens, DenseGreedy(*model_, prompt, plan, 12));
  ASSERT_EQ(answer.end.doses.size(), 3);
  for (const AppliedDose& dose : answer.end.doses) {
    EXPECT_EQ(dose.steered_tokens, 9 + 11);
    EXPECT_NEAR(dose.mean_relative_dose, (0.2 + 0.6 + 0.4) / 3, 1e-3) << "the mean over sites and layers";
  }
}

TEST_F(EngineTest, ScoresEqualTeacherForcedDensePasses) {
  EngineConfig config = Config();
  config.max_step_tokens = 7;  // continuations are cut into chunks
  const auto engine = Make(config);
  std::vector<ScoreItem> items;
  for (int i = 0; i < 12; ++i) {
    ScoreItem item;
    item.tokens = RandomTokens(14, 1);  // prompts are shared
    item.prompt_length = 1 + i;
    item.tokens.back() = i;
    if (i % 3 != 0) item.plan = OneVector(TinyVector(1 + i % 2), 0.3f, static_cast<ApplyTo>(1 + i % 3));
    item.top = i % 2 == 0 ? 3 : 0;
    if (i == 4) item.watch.assign(item.tokens.size() - item.prompt_length, {5, 6});
    items.push_back(std::move(item));
  }
  const auto outcomes = engine->Score(items);
  ASSERT_TRUE(outcomes.ok()) << outcomes.status();
  ASSERT_EQ(outcomes->size(), items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    const ScoreItem& item = items[i];
    const auto expected = DenseLogprobs(*model_, item.tokens, item.prompt_length, item.plan);
    ASSERT_EQ((*outcomes)[i].tokens.size(), item.tokens.size() - item.prompt_length);
    for (size_t j = 0; j < (*outcomes)[i].tokens.size(); ++j) {
      const ScoredToken& scored = (*outcomes)[i].tokens[j];
      const std::vector<float>& row = expected[item.prompt_length - 1 + j];
      EXPECT_EQ(scored.token, item.tokens[item.prompt_length + j]);
      EXPECT_NEAR(scored.logprob, row[scored.token], 2e-4) << "item " << i << ", token " << j;
      const float best = *std::max_element(row.begin(), row.end());
      EXPECT_EQ(scored.is_greedy, row[scored.token] == best);
      ASSERT_EQ(scored.top.size(), static_cast<size_t>(item.top));
      if (item.top > 0) {
        EXPECT_NEAR(scored.top[0].logprob, best, 2e-4);
      }
      ASSERT_EQ(scored.watched.size(), i == 4 ? 2u : 0u);
      if (i == 4) {
        EXPECT_NEAR(scored.watched[1], row[6], 2e-4);
      }
    }
  }
  EXPECT_GT((*outcomes)[11].cached_prompt_tokens, 0);
}

TEST_F(EngineTest, ScoreFailsAsAWhole) {
  const auto engine = Make(Config());
  std::vector<ScoreItem> items(3);
  for (ScoreItem& item : items) {
    item.tokens = {1, 2, 3};
    item.prompt_length = 2;
  }
  items[1].tokens = {1, 2, 1'000'000};
  EXPECT_EQ(Reason(engine->Score(items).status()), kFieldInvalid);
  items[1].tokens = {1, 2, 3};
  EXPECT_TRUE(engine->Score(items).ok());
  EXPECT_TRUE(engine->Score({})->empty());
  engine->Drain(clock_.Now());
  EXPECT_EQ(Reason(engine->Score(items).status()), kShuttingDown);
}

TEST_F(EngineTest, EndTokensEndTheOutput) {
  const auto engine = Make(Config());
  const std::vector<TokenId> prompt = RandomTokens(9, 5);
  const std::vector<TokenId> tokens = DenseGreedy(*model_, prompt, {}, 12);
  auto request = MakeRequest("a", prompt);
  request->sampling.end_tokens = {tokens[4]};
  const Answer answer = RunOne(*engine, std::move(request));
  const auto first = std::find(tokens.begin(), tokens.end(), tokens[4]);
  EXPECT_EQ(answer.tokens, std::vector<TokenId>(tokens.begin(), first));
  EXPECT_EQ(answer.end.reason, FinishReason::kStop);
}

}  // namespace
}  // namespace trimtab
