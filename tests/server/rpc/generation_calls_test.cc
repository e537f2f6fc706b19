// How calls of the generation service end: failures, cancels, deadlines, slow readers, shutdown, many at once.
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/rpc/generation_service_fixture.h"

namespace trimtab {
namespace {

using GenerationCallsTest = GenerationServiceFixture;

TEST_F(GenerationCallsTest, AFailureUnderWayIsTheCallsStatus) {
  model_->set_script(
      {.answer = "abc", .failure = ReasonError(absl::StatusCode::kInternal, kNonFinite, "activations are not finite")});
  v1::GenerateResponse response;
  EXPECT_EQ(Reason(Generate(Prompt("x"), &response)), "NON_FINITE");
  std::vector<v1::GenerateResponse> pieces;
  const grpc::Status status = Stream(Prompt("x"), &pieces);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(Reason(status), "NON_FINITE");
}

TEST_F(GenerationCallsTest, CancellingReachesTheEngine) {
  model_->set_script({.answer = "x", .endless = true});
  v1::GenerateRequest request = Prompt("x");
  request.mutable_config()->set_max_output_tokens(1 << 20);
  grpc::ClientContext context;
  auto reader = stub_->StreamGenerate(&context, request);
  v1::GenerateResponse piece;
  ASSERT_TRUE(reader->Read(&piece));
  context.TryCancel();
  while (reader->Read(&piece)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  model_->WaitForIdle();
  ASSERT_FALSE(model_->aborts().empty());
  EXPECT_EQ(model_->aborts()[0], FinishReason::kCancelled);

  // A unary call that has produced nothing yet.
  model_->set_script({.hang = true});
  grpc::ClientContext unary;
  std::thread canceller([&] {
    model_->WaitForSubmitted(2);
    unary.TryCancel();
  });
  v1::GenerateResponse response;
  EXPECT_EQ(stub_->Generate(&unary, Prompt("x"), &response).error_code(), grpc::StatusCode::CANCELLED);
  canceller.join();
  model_->WaitForIdle();
}

TEST_F(GenerationCallsTest, DeadlinesReachTheEngine) {
  model_->set_script({.hang = true});
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  v1::GenerateResponse response;
  EXPECT_EQ(stub_->Generate(&context, Prompt("x"), &response).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  model_->WaitForIdle();
  EXPECT_LT(model_->last_request().deadline, clock_.Now() + absl::Seconds(10));
}

TEST_F(GenerationCallsTest, ASlowReaderPausesItsSequenceAndLosesNothing) {
  // Far more than gRPC buffers by itself: the engine must get ahead of the reader.
  model_->set_script({.answer = "abcdefghij", .endless = true});
  v1::GenerateRequest request = Prompt("x");
  request.mutable_config()->set_max_output_tokens(200'000);
  request.mutable_config()->set_logprobs(20);
  grpc::ClientContext context;
  auto reader = stub_->StreamGenerate(&context, request);
  model_->WaitForPause();
  std::string text;
  v1::GenerateResponse piece;
  while (reader->Read(&piece)) text += piece.text();
  ASSERT_TRUE(reader->Finish().ok());
  ASSERT_EQ(text.size(), 200'000u);
  for (size_t i = 0; i < text.size(); ++i) ASSERT_EQ(text[i], static_cast<char>('a' + i % 10)) << i;
  EXPECT_EQ(piece.finish_reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(GenerationCallsTest, AReaderThatStallsIsBrokenOff) {
  model_->set_script({.answer = "abcdefghij", .endless = true, .stall = true});
  v1::GenerateRequest request = Prompt("x");
  request.mutable_config()->set_max_output_tokens(1'000'000);
  request.mutable_config()->set_logprobs(20);
  grpc::ClientContext context;
  auto reader = stub_->StreamGenerate(&context, request);
  model_->WaitForSubmitted(1);
  model_->WaitForIdle();
  // The server ends by itself: shutting down without a deadline does not hang.
  v1::GenerateResponse piece;
  while (reader->Read(&piece)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(GenerationCallsTest, ShutdownEndsEveryCall) {
  model_->set_script({.hang = true});
  std::vector<std::thread> clients;
  std::atomic<int> ended = 0;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&, i] {
      grpc::ClientContext context;
      v1::GenerateResponse response;
      if (i % 2 == 0) {
        EXPECT_FALSE(stub_->Generate(&context, Prompt("x"), &response).ok());
      } else {
        auto reader = stub_->StreamGenerate(&context, Prompt("x"));
        EXPECT_FALSE(reader->Read(&response));
        EXPECT_FALSE(reader->Finish().ok());
      }
      ++ended;
    });
  }
  model_->WaitForSubmitted(8);
  server_->server->Shutdown(absl::Now());
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(ended, 8);
  model_->WaitForIdle();
}

TEST_F(GenerationCallsTest, ManyCallsAtOnceDoNotMix) {
  std::vector<std::thread> clients;
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back([&, i] {
      for (int round = 0; round < 5; ++round) {
        const std::string text = absl::StrCat("client ", i, " round ", round);
        if (i % 2 == 0) {
          v1::GenerateResponse response;
          EXPECT_TRUE(Generate(Prompt(text), &response).ok());
          EXPECT_EQ(response.text(), text);
        } else {
          std::vector<v1::GenerateResponse> pieces;
          EXPECT_TRUE(Stream(Prompt(text), &pieces).ok());
          std::string joined;
          for (const v1::GenerateResponse& piece : pieces) joined += piece.text();
          EXPECT_EQ(joined, text);
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

}  // namespace
}  // namespace trimtab
