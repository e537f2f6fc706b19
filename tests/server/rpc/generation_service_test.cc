#include "server/rpc/generation_service.h"

#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/server/rpc/generation_service_fixture.h"

namespace trimtab {
namespace {

using GenerationServiceTest = GenerationServiceFixture;

TEST_F(GenerationServiceTest, UnaryGivesTheWholeAnswer) {
  v1::GenerateRequest request = Prompt("gr\xC3\xBC\xC3\x9F dich");
  request.set_request_id("mine");
  v1::GenerateResponse response;
  const grpc::Status status = Generate(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.text(), "gr\xC3\xBC\xC3\x9F dich");
  EXPECT_EQ(response.token_ids_size(), 11);
  EXPECT_EQ(response.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(response.usage().prompt_tokens(), 11);
  EXPECT_EQ(response.usage().output_tokens(), 11);
  EXPECT_EQ(response.request_id(), "mine");
  EXPECT_EQ(response.timing().time_to_first_token().nanos(), 3'000'000);
  EXPECT_EQ(response.applied_size(), 0);
  EXPECT_EQ(response.logprobs_size(), 0);
}

TEST_F(GenerationServiceTest, StreamPiecesJoinToTheUnaryAnswer) {
  const v1::GenerateRequest request = Prompt(std::string(500, 'x') + "\xE2\x82\xAC end");
  std::vector<v1::GenerateResponse> pieces;
  v1::GenerateRequest longer = request;
  longer.mutable_config()->set_max_output_tokens(1000);
  ASSERT_TRUE(Stream(longer, &pieces).ok());
  ASSERT_FALSE(pieces.empty());
  std::string text;
  int tokens = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    EXPECT_TRUE(IsValidUtf8(pieces[i].text()));
    text += pieces[i].text();
    tokens += pieces[i].token_ids_size();
    EXPECT_FALSE(pieces[i].request_id().empty());
    EXPECT_EQ(pieces[i].request_id(), pieces[0].request_id());
    if (i + 1 < pieces.size()) {
      EXPECT_EQ(pieces[i].finish_reason(), v1::FINISH_REASON_UNSPECIFIED);
      EXPECT_FALSE(pieces[i].has_usage());
    }
  }
  EXPECT_EQ(text, longer.prompt());
  EXPECT_EQ(tokens, 507);
  EXPECT_EQ(pieces.back().finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(pieces.back().usage().output_tokens(), 507);
}

TEST_F(GenerationServiceTest, TheTenantOfTheMetadataReachesTheEngine) {
  const auto generate = [&](const std::vector<std::string>& tenants) {
    grpc::ClientContext context;
    for (const std::string& tenant : tenants) context.AddMetadata("x-trimtab-tenant", tenant);
    v1::GenerateResponse response;
    return stub_->Generate(&context, Prompt("abc"), &response);
  };
  ASSERT_TRUE(generate({"team-7"}).ok());
  EXPECT_EQ(model_->last_request().tenant, "team-7");
  ASSERT_TRUE(generate({}).ok());
  EXPECT_EQ(model_->last_request().tenant, "");
  EXPECT_FALSE(model_->last_request().internal);
  for (const std::vector<std::string>& bad : {std::vector<std::string>{"Team 7"}, {""}, {"a", "b"}}) {
    EXPECT_EQ(Reason(generate(bad)), "FIELD_INVALID");
  }
  v1::ScoreRequest score;
  score.set_model("models/fake");
  score.set_prompt("abc");
  score.add_continuations("d");
  v1::ScoreResponse response;
  grpc::ClientContext context;
  context.AddMetadata("x-trimtab-tenant", "scorers");
  ASSERT_TRUE(stub_->Score(&context, score, &response).ok());
  EXPECT_EQ(model_->last_request().tenant, "scorers");
}

TEST_F(GenerationServiceTest, SamplingReachesTheEngine) {
  v1::GenerateRequest request = Prompt("abc");
  request.mutable_config()->set_max_output_tokens(2);
  request.mutable_config()->set_temperature(0.5f);
  request.mutable_config()->set_seed(42);
  request.mutable_config()->set_ignore_eos(true);
  request.mutable_config()->set_logprobs(1);
  request.set_priority(v1::PRIORITY_BATCH);
  v1::GenerateResponse response;
  ASSERT_TRUE(Generate(request, &response).ok());
  EXPECT_EQ(response.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(response.text(), "ab");
  ASSERT_EQ(response.logprobs_size(), 2);
  EXPECT_EQ(response.logprobs(0).top_size(), 1);
  const Request seen = model_->last_request();
  EXPECT_EQ(seen.sampling.max_output_tokens, 2);
  EXPECT_EQ(seen.sampling.temperature, 0.5f);
  EXPECT_EQ(seen.sampling.seed, 42u);
  EXPECT_TRUE(seen.sampling.end_tokens.empty());
  EXPECT_EQ(seen.priority, Priority::kBatch);
  EXPECT_EQ(seen.deadline, absl::InfiniteFuture());
}

TEST_F(GenerationServiceTest, ConversationsGoThroughTheTemplate) {
  v1::GenerateRequest request;
  request.set_model("models/fake");
  v1::Content& content = *request.mutable_conversation()->add_contents();
  content.set_role(v1::ROLE_USER);
  content.add_parts()->set_text("hi ");
  content.add_parts()->set_text("there");
  v1::GenerateResponse response;
  ASSERT_TRUE(Generate(request, &response).ok());
  EXPECT_EQ(response.text(), "user: hi there\n");
}

TEST_F(GenerationServiceTest, StopSequencesEndTheRequestInTheEngine) {
  model_->set_script({.answer = "one two three ", .endless = true});
  v1::GenerateRequest request = Prompt("x");
  request.mutable_config()->add_stop_sequences("three one");
  request.mutable_config()->set_max_output_tokens(1 << 20);
  v1::GenerateResponse response;
  ASSERT_TRUE(Generate(request, &response).ok());
  EXPECT_EQ(response.text(), "one two ");
  EXPECT_EQ(response.finish_reason(), v1::FINISH_REASON_STOP_SEQUENCE);
  EXPECT_EQ(response.usage().output_tokens(), 17) << "the bytes up to the stop sequence's end, whatever came later";
  EXPECT_EQ(model_->aborts(), std::vector<FinishReason>{FinishReason::kStopSequence});

  // Also when the last token brings it.
  model_->set_script({.answer = "ends."});
  request.mutable_config()->add_stop_sequences(".");
  ASSERT_TRUE(Generate(request, &response).ok());
  EXPECT_EQ(response.text(), "ends");
  EXPECT_EQ(response.finish_reason(), v1::FINISH_REASON_STOP_SEQUENCE);
}

TEST_F(GenerationServiceTest, SaysWhatWasApplied) {
  PutObjective();
  v1::GenerateRequest request = Prompt("x");
  request.add_steering()->set_objective("calm");
  v1::GenerateResponse response;
  ASSERT_TRUE(Generate(request, &response).ok());
  ASSERT_EQ(response.applied_size(), 1);
  EXPECT_EQ(response.applied(0).objective(), "models/fake/objectives/calm");
  EXPECT_EQ(response.applied(0).revision(), 2);
  EXPECT_EQ(response.applied(0).digest(), vector_->digest());
  EXPECT_EQ(response.applied(0).strength(), 0.05f);
  EXPECT_EQ(response.applied(0).apply_to(), v1::APPLY_TO_FROM_LAST_PROMPT);
  EXPECT_EQ(response.applied(0).steered_tokens(), 10);
  EXPECT_EQ(response.applied(0).mean_relative_dose(), 0.5f);

  request.mutable_steering(0)->set_objective("calm@2");
  request.mutable_steering(0)->set_strength(-0.25f);
  request.mutable_steering(0)->set_apply_to(v1::APPLY_TO_RESPONSE);
  std::vector<v1::GenerateResponse> pieces;
  ASSERT_TRUE(Stream(request, &pieces).ok());
  EXPECT_EQ(pieces.back().applied(0).strength(), -0.25f);
  EXPECT_EQ(pieces.back().applied(0).apply_to(), v1::APPLY_TO_RESPONSE);
  EXPECT_EQ(model_->last_request().plan.entries()[0].vector, vector_);
}

TEST_F(GenerationServiceTest, NeverServesUnsteeredInstead) {
  v1::GenerateRequest request = Prompt("x");
  v1::SteeringSelection& calm = *request.add_steering();
  calm.set_objective("calm");
  v1::GenerateResponse response;
  grpc::Status status = Generate(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Reason(status), "OBJECTIVE_NOT_FOUND");

  for (const auto state :
       {ServedObjective::State::kCreating, ServedObjective::State::kFailed, ServedObjective::State::kDisabled}) {
    PutObjective(state);
    status = Generate(request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_EQ(Reason(status), "OBJECTIVE_NOT_READY");
  }
  PutObjective();
  calm.set_objective("calm@9");
  status = Generate(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Reason(status), "REVISION_NOT_FOUND");
  calm.set_objective("calm@1");
  status = Generate(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Reason(status), "FINGERPRINT_MISMATCH");
  calm.set_objective("calm");
  calm.set_strength(0.31f);
  std::vector<v1::GenerateResponse> pieces;
  status = Stream(request, &pieces);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Reason(status), "STRENGTH_OUT_OF_RANGE");
  EXPECT_TRUE(pieces.empty());
  request.set_model("models/other");
  calm.set_strength(0.1f);
  status = Generate(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Reason(status), "MODEL_NOT_FOUND");
}

TEST_F(GenerationServiceTest, PassesTheEnginesRefusalsOn) {
  const std::vector<std::pair<absl::Status, grpc::StatusCode>> refusals = {
      {OverloadError(kQueueFull, "full", absl::Seconds(1)), grpc::StatusCode::RESOURCE_EXHAUSTED},
      {ReasonError(absl::StatusCode::kInvalidArgument, kPromptTooLong, "too long", {{"tokens", "9"}, {"limit", "8"}}),
       grpc::StatusCode::INVALID_ARGUMENT},
      {ReasonError(absl::StatusCode::kResourceExhausted, kKvCacheTooSmall, "never fits"),
       grpc::StatusCode::RESOURCE_EXHAUSTED},
      {ReasonError(absl::StatusCode::kUnavailable, kShuttingDown, "draining"), grpc::StatusCode::UNAVAILABLE},
      {ReasonError(absl::StatusCode::kUnavailable, kEngineUnhealthy, "stopped"), grpc::StatusCode::UNAVAILABLE},
  };
  for (const auto& [refusal, code] : refusals) {
    model_->set_script({.refusal = refusal});
    v1::GenerateResponse response;
    grpc::Status status = Generate(Prompt("x"), &response);
    EXPECT_EQ(status.error_code(), code);
    EXPECT_EQ(GetErrorDetail(FromGrpcStatus(status)), GetErrorDetail(refusal));
    std::vector<v1::GenerateResponse> pieces;
    status = Stream(Prompt("x"), &pieces);
    EXPECT_EQ(GetErrorDetail(FromGrpcStatus(status)), GetErrorDetail(refusal));
  }
}

TEST_F(GenerationServiceTest, ScoresEachContinuation) {
  PutObjective();
  v1::ScoreRequest request;
  request.set_model("models/fake");
  request.set_prompt("prompt");
  request.add_continuations("ab");
  request.add_continuations("x");
  request.add_steering()->set_objective("calm");
  v1::ScoreResponse response;
  grpc::ClientContext context;
  const grpc::Status status = stub_->Score(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.scores_size(), 2);
  EXPECT_DOUBLE_EQ(response.scores(0).log_likelihood(), -0.5);
  EXPECT_EQ(response.scores(0).token_count(), 2);
  EXPECT_TRUE(response.scores(0).is_greedy());
  EXPECT_EQ(response.scores(0).token_logprobs_size(), 2);
  EXPECT_DOUBLE_EQ(response.scores(1).log_likelihood(), -0.25);
  EXPECT_FALSE(response.scores(1).is_greedy());
  EXPECT_EQ(response.usage().prompt_tokens(), 6);
  EXPECT_EQ(response.usage().output_tokens(), 3);
  ASSERT_EQ(response.applied_size(), 1);
  EXPECT_EQ(response.applied(0).steered_tokens(), 20);
  EXPECT_EQ(response.applied(0).mean_relative_dose(), 0.5f);
  EXPECT_TRUE(model_->last_request().score);
  EXPECT_EQ(model_->last_request().prompt_length, 6);
}

TEST_F(GenerationServiceTest, ScoreFailsAsAWhole) {
  v1::ScoreRequest request;
  request.set_model("models/fake");
  request.set_prompt("prompt");
  request.add_continuations("a");
  v1::ScoreResponse response;
  model_->set_script({.refusal = OverloadError(kQueueFull, "full", absl::Seconds(1))});
  grpc::ClientContext refused;
  EXPECT_EQ(Reason(stub_->Score(&refused, request, &response)), "QUEUE_FULL");
  model_->set_script({.hang = true});
  for (int i = 0; i < 20; ++i) request.add_continuations("b");
  grpc::ClientContext cancelled;
  std::thread canceller([&] {
    model_->WaitForSubmitted(21);
    cancelled.TryCancel();
  });
  EXPECT_EQ(stub_->Score(&cancelled, request, &response).error_code(), grpc::StatusCode::CANCELLED);
  canceller.join();
  model_->WaitForIdle();
}

TEST_F(GenerationServiceTest, CountsTokens) {
  v1::CountTokensRequest request;
  request.set_model("models/fake");
  request.set_prompt("abc");
  request.set_include_token_ids(true);
  v1::CountTokensResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->CountTokens(&context, request, &response).ok());
  EXPECT_EQ(response.total_tokens(), 3);
  EXPECT_EQ(response.context_length(), 4096);
  EXPECT_EQ(response.token_ids_size(), 3);
}

}  // namespace
}  // namespace trimtab
