#include "server/engine/score_call.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace trimtab {
namespace {

RequestEnd EndWith(float logprob) {
  RequestEnd end;
  end.scored.push_back({.logprob = logprob});
  return end;
}

TEST(ScoreCallTest, ReturnsOutcomesInTheItemsOrder) {
  ScoreWindow window(8);
  auto call = std::make_shared<ScoreCall>(3, window);
  std::vector<std::shared_ptr<RequestSink>> sinks;
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(call->WaitForRoom());
    sinks.push_back(call->Sink(i));
  }
  std::thread engine([&] {
    for (int i = 2; i >= 0; --i) sinks[i]->OnEnd(EndWith(static_cast<float>(i)));
  });
  const auto outcomes = call->Await([] { FAIL() << "nothing failed"; });
  engine.join();
  ASSERT_TRUE(outcomes.ok());
  for (int i = 0; i < 3; ++i) EXPECT_EQ((*outcomes)[i].tokens[0].logprob, i);
}

TEST(ScoreCallTest, FirstFailureFailsTheCallAndAbortsTheRest) {
  ScoreWindow window(8);
  auto call = std::make_shared<ScoreCall>(3, window);
  ASSERT_TRUE(call->WaitForRoom());
  const auto first = call->Sink(0);
  ASSERT_TRUE(call->WaitForRoom());
  const auto second = call->Sink(1);
  RequestEnd failed;
  failed.reason = FinishReason::kError;
  failed.status = absl::InternalError("first");
  first->OnEnd(std::move(failed));
  EXPECT_FALSE(call->WaitForRoom()) << "submit nothing more";
  int aborts = 0;
  const auto outcomes = call->Await([&] {
    ++aborts;
    RequestEnd cancelled;
    cancelled.status = absl::CancelledError("second");
    second->OnEnd(std::move(cancelled));
  });
  EXPECT_EQ(outcomes.status(), absl::InternalError("first"));
  EXPECT_EQ(aborts, 1);
}

TEST(ScoreCallTest, RefusedItemsFailTheCallAndGiveTheirRoomBack) {
  ScoreWindow window(1);
  auto call = std::make_shared<ScoreCall>(1, window);
  ASSERT_TRUE(call->WaitForRoom());
  call->Refused(absl::UnavailableError("down"));
  EXPECT_EQ(call->Await([] {}).status(), absl::UnavailableError("down"));
  auto next = std::make_shared<ScoreCall>(1, window);
  EXPECT_TRUE(next->WaitForRoom());
  next->Sink(0)->OnEnd(EndWith(1));
  EXPECT_TRUE(next->Await([] {}).ok());
}

TEST(ScoreCallTest, TheWindowBoundsWhatIsInFlight) {
  ScoreWindow window(1);
  auto call = std::make_shared<ScoreCall>(20, window);
  std::atomic<int> in_flight{0};
  std::vector<std::thread> engine;
  for (size_t i = 0; i < 20; ++i) {
    ASSERT_TRUE(call->WaitForRoom());
    ASSERT_EQ(in_flight.fetch_add(1), 0);
    engine.emplace_back([&, sink = call->Sink(i)] {
      --in_flight;
      sink->OnEnd(EndWith(0));
    });
  }
  EXPECT_TRUE(call->Await([] {}).ok());
  for (std::thread& thread : engine) thread.join();
}

TEST(ScoreCallTest, NoItemsNoWait) {
  ScoreWindow window(1);
  auto call = std::make_shared<ScoreCall>(0, window);
  EXPECT_TRUE(call->Await([] {})->empty());
}

}  // namespace
}  // namespace trimtab
