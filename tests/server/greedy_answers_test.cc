#include "server/greedy_answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "tests/server/rpc/fake_model.h"

namespace trimtab {
namespace {

using testing::ElementsAre;

// Goes on until told otherwise.
class Job final : public JobContext {
 public:
  absl::Status Checkpoint() override {
    ++checkpoints;
    return cancelled ? absl::CancelledError("cancelled") : absl::OkStatus();
  }
  void Report(const JobProgress&) override {}
  absl::Status SavePartial(std::string_view, std::string_view) override { return absl::OkStatus(); }
  absl::StatusOr<std::optional<std::string>> LoadPartial(std::string_view) override { return std::nullopt; }

  std::atomic<bool> cancelled = false;
  std::atomic<int> checkpoints = 0;
};

std::vector<std::vector<TokenId>> Prompts(const FakeModel& model) {
  return {model.EncodeContinuation("first"), model.EncodeContinuation("second")};
}

TEST(GreedyAnswersTest, AnswersComeInTheOrderOfThePrompts) {
  FakeModel model;
  Job job;
  const auto answers = GreedyAnswers(model, Prompts(model), SteeringPlan(), 5, "curve-1", job);
  ASSERT_TRUE(answers.ok()) << answers.status();
  EXPECT_THAT(*answers, ElementsAre("first", "secon"));
  const Request last = model.last_request();
  EXPECT_EQ(last.priority, Priority::kBackground);
  EXPECT_TRUE(last.internal);
  EXPECT_EQ(last.sampling.temperature, 0);
  EXPECT_EQ(last.sampling.max_output_tokens, 5);
  EXPECT_EQ(last.id, "curve-1-1");
}

TEST(GreedyAnswersTest, ACancelledJobTakesItsRequestsBack) {
  FakeModel model;
  model.set_script({.hang = true});
  Job job;
  std::thread canceller([&] {
    model.WaitForSubmitted(2);
    job.cancelled = true;
  });
  const auto answers = GreedyAnswers(model, Prompts(model), SteeringPlan(), 100, "curve-1", job);
  canceller.join();
  EXPECT_EQ(answers.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(model.aborts().size(), 2u);
  model.WaitForIdle();
}

TEST(GreedyAnswersTest, AFailureOfARequestIsTheCallers) {
  FakeModel model;
  model.set_script({.failure = absl::InternalError("broken")});
  Job job;
  EXPECT_EQ(GreedyAnswers(model, Prompts(model), SteeringPlan(), 100, "c", job).status().code(),
            absl::StatusCode::kInternal);
  model.set_script({.refusal = absl::UnavailableError("stopped")});
  EXPECT_EQ(GreedyAnswers(model, Prompts(model), SteeringPlan(), 100, "c", job).status().code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace trimtab
