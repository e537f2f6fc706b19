#include "server/rpc/validate.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <map>
#include <set>
#include <string>

#include "server/base/error.h"

namespace trimtab {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The fields of a FIELD_INVALID, in no order.
std::multiset<std::string> Fields(const absl::Status& status) {
  const ErrorDetail detail = GetErrorDetail(status);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(detail.reason, "FIELD_INVALID") << status;
  std::multiset<std::string> fields;
  for (const FieldViolation& violation : detail.violations) fields.insert(violation.field);
  return fields;
}

using Strings = std::multiset<std::string>;

v1::Content Say(v1::Role role, const std::string& text) {
  v1::Content content;
  content.set_role(role);
  content.add_parts()->set_text(text);
  return content;
}

v1::GenerateRequest Good() {
  v1::GenerateRequest request;
  request.set_model("models/m");
  *request.mutable_conversation()->add_contents() = Say(v1::ROLE_SYSTEM, "be kind");
  *request.mutable_conversation()->add_contents() = Say(v1::ROLE_USER, "hello");
  return request;
}

TEST(ValidateGenerate, DefaultsAreThoseOfTheApi) {
  const auto call = ParseGenerateRequest(Good());
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->model, "m");
  ASSERT_EQ(call->input.messages.size(), 2u);
  EXPECT_EQ(call->input.messages[0].role, "system");
  EXPECT_EQ(call->input.messages[1].role, "user");
  EXPECT_EQ(call->input.messages[1].text, "hello");
  EXPECT_EQ(call->sampling.max_output_tokens, 256);
  EXPECT_EQ(call->sampling.temperature, 0);
  EXPECT_EQ(call->sampling.top_p, 1);
  EXPECT_EQ(call->sampling.top_k, 0);
  EXPECT_EQ(call->sampling.min_p, 0);
  EXPECT_EQ(call->sampling.repetition_penalty, 1);
  EXPECT_EQ(call->sampling.logprobs, -1);
  EXPECT_FALSE(call->seed.has_value());
  EXPECT_EQ(call->priority, Priority::kInteractive);
  EXPECT_TRUE(call->steering.empty());
}

TEST(ValidateGenerate, EverythingSetIsTakenOver) {
  v1::GenerateRequest request = Good();
  request.set_prompt("raw text");
  v1::GenerationConfig& config = *request.mutable_config();
  config.set_max_output_tokens(7);
  config.set_temperature(0.7f);
  config.set_top_p(0.9f);
  config.set_top_k(40);
  config.set_min_p(0.05f);
  config.set_seed(0);
  config.set_logprobs(0);
  config.set_repetition_penalty(1.1f);
  config.set_ignore_eos(true);
  config.add_stop_sequences("\n\n");
  request.set_priority(v1::PRIORITY_BACKGROUND);
  request.set_request_id("abc-1");
  v1::SteeringSelection& calm = *request.add_steering();
  calm.set_objective("calm@3");
  calm.set_strength(-0.3f);
  calm.set_apply_to(v1::APPLY_TO_RESPONSE);
  request.add_steering()->set_objective("models/m/objectives/brief");
  const auto call = ParseGenerateRequest(request);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->input.raw, "raw text");
  EXPECT_TRUE(call->input.messages.empty());
  EXPECT_EQ(call->sampling.max_output_tokens, 7);
  EXPECT_EQ(call->sampling.temperature, 0.7f);
  EXPECT_EQ(call->sampling.top_p, 0.9f);
  EXPECT_EQ(call->sampling.top_k, 40);
  EXPECT_EQ(call->sampling.min_p, 0.05f);
  EXPECT_EQ(call->seed, 0u);
  EXPECT_EQ(call->sampling.logprobs, 0);
  EXPECT_EQ(call->sampling.repetition_penalty, 1.1f);
  EXPECT_TRUE(call->ignore_eos);
  EXPECT_EQ(call->stop_sequences, std::vector<std::string>{"\n\n"});
  EXPECT_EQ(call->priority, Priority::kBackground);
  EXPECT_EQ(call->request_id, "abc-1");
  ASSERT_EQ(call->steering.size(), 2u);
  EXPECT_EQ(call->steering[0].objective, "models/m/objectives/calm");
  EXPECT_EQ(call->steering[0].revision, 3);
  EXPECT_EQ(call->steering[0].strength, -0.3f);
  EXPECT_EQ(call->steering[0].apply_to, ApplyTo::kResponse);
  EXPECT_EQ(call->steering[1].objective, "models/m/objectives/brief");
  EXPECT_FALSE(call->steering[1].revision || call->steering[1].strength || call->steering[1].apply_to);
}

// One change of a good request and the fields that it must be refused for.
struct Case {
  std::function<void(v1::GenerateRequest&)> change;
  Strings fields;
};

TEST(ValidateGenerate, RefusesEachBadField) {
  using R = v1::GenerateRequest;
  const std::vector<Case> cases = {
      {[](R& r) { r.clear_model(); }, {"model"}},
      {[](R& r) { r.set_model("m"); }, {"model"}},
      {[](R& r) { r.clear_input(); }, {"input"}},
      {[](R& r) { r.set_prompt(""); }, {"prompt"}},
      {[](R& r) { r.set_prompt(std::string((1 << 20) + 1, 'x')); }, {"prompt"}},
      {[](R& r) { r.set_prompt("\xC3\x28"); }, {"prompt"}},
      {[](R& r) { r.mutable_conversation()->clear_contents(); }, {"conversation.contents"}},
      {[](R& r) {
         for (int i = 0; i < 300; ++i) *r.mutable_conversation()->add_contents() = Say(v1::ROLE_USER, "x");
       },
       {"conversation.contents"}},
      {[](R& r) { r.mutable_conversation()->mutable_contents(1)->clear_role(); }, {"conversation.contents[1].role"}},
      {[](R& r) { r.mutable_conversation()->mutable_contents(1)->set_role(static_cast<v1::Role>(9)); },
       {"conversation.contents[1].role"}},
      {[](R& r) { r.mutable_conversation()->mutable_contents(1)->set_role(v1::ROLE_SYSTEM); },
       {"conversation.contents[1].role"}},
      {[](R& r) { r.mutable_conversation()->mutable_contents(1)->clear_parts(); }, {"conversation.contents[1].parts"}},
      {[](R& r) { r.mutable_conversation()->mutable_contents(1)->add_parts(); },
       {"conversation.contents[1].parts[1].data"}},
      {[](R& r) { r.mutable_conversation()->mutable_contents(1)->mutable_parts(0)->set_text("\xFF"); },
       {"conversation.contents[1].parts[0].text"}},
      {[](R& r) { r.mutable_conversation()->mutable_contents(1)->add_parts()->mutable_image(); },
       {"conversation.contents[1].parts[1].image.source"}},
      {[](R& r) {
         for (int i = 0; i < 3; ++i) {
           *r.mutable_conversation()->add_contents() = Say(v1::ROLE_USER, std::string(400'000, 'x'));
         }
       },
       {"conversation.contents"}},
      {[](R& r) { r.mutable_config()->set_max_output_tokens(0); }, {"config.max_output_tokens"}},
      {[](R& r) { r.mutable_config()->set_max_output_tokens(std::numeric_limits<int32_t>::max()); },
       {"config.max_output_tokens"}},
      {[](R& r) { r.mutable_config()->set_temperature(-0.1f); }, {"config.temperature"}},
      {[](R& r) { r.mutable_config()->set_temperature(kNan); }, {"config.temperature"}},
      {[](R& r) { r.mutable_config()->set_temperature(kInfinity); }, {"config.temperature"}},
      {[](R& r) { r.mutable_config()->set_top_p(0); }, {"config.top_p"}},
      {[](R& r) { r.mutable_config()->set_top_p(1.01f); }, {"config.top_p"}},
      {[](R& r) { r.mutable_config()->set_top_k(-1); }, {"config.top_k"}},
      {[](R& r) { r.mutable_config()->set_min_p(1); }, {"config.min_p"}},
      {[](R& r) { r.mutable_config()->set_min_p(kNan); }, {"config.min_p"}},
      {[](R& r) { r.mutable_config()->set_repetition_penalty(0); }, {"config.repetition_penalty"}},
      {[](R& r) { r.mutable_config()->set_logprobs(21); }, {"config.logprobs"}},
      {[](R& r) { r.mutable_config()->set_logprobs(-1); }, {"config.logprobs"}},
      {[](R& r) { r.mutable_config()->add_stop_sequences(""); }, {"config.stop_sequences[0]"}},
      {[](R& r) { r.mutable_config()->add_stop_sequences(std::string(257, 'x')); }, {"config.stop_sequences[0]"}},
      {[](R& r) {
         for (int i = 0; i < 17; ++i) r.mutable_config()->add_stop_sequences("x");
       },
       {"config.stop_sequences"}},
      {[](R& r) { r.set_priority(static_cast<v1::Priority>(44)); }, {"priority"}},
      {[](R& r) { r.set_request_id(std::string(129, 'x')); }, {"request_id"}},
      {[](R& r) { r.set_request_id("a\nb"); }, {"request_id"}},
      {[](R& r) {
         for (int i = 0; i < 5; ++i) r.add_steering()->set_objective("o" + std::to_string(i));
       },
       {"steering"}},
      {[](R& r) { r.add_steering(); }, {"steering[0].objective"}},
      {[](R& r) { r.add_steering()->set_objective("calm@0"); }, {"steering[0].objective"}},
      {[](R& r) { r.add_steering()->set_objective(std::string(100'000, 'a')); }, {"steering[0].objective"}},
      {[](R& r) { r.add_steering()->set_objective("models/other/objectives/calm"); }, {"steering[0].objective"}},
      {[](R& r) {
         r.add_steering()->set_objective("calm");
         r.add_steering()->set_objective("models/m/objectives/calm@2");
       },
       {"steering[1].objective"}},
      {[](R& r) {
         r.add_steering()->set_objective("calm");
         r.mutable_steering(0)->set_strength(kNan);
       },
       {"steering[0].strength"}},
      {[](R& r) {
         r.add_steering()->set_objective("calm");
         r.mutable_steering(0)->set_strength(1001);
       },
       {"steering[0].strength"}},
      {[](R& r) {
         r.add_steering()->set_objective("calm");
         r.mutable_steering(0)->set_apply_to(static_cast<v1::ApplyTo>(7));
       },
       {"steering[0].apply_to"}},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    v1::GenerateRequest request = Good();
    cases[i].change(request);
    const auto call = ParseGenerateRequest(request);
    ASSERT_FALSE(call.ok()) << "case " << i;
    EXPECT_EQ(Fields(call.status()), cases[i].fields) << "case " << i;
  }
}

TEST(ValidateGenerate, AllViolationsComeAtOnce) {
  v1::GenerateRequest request;
  request.mutable_config()->set_temperature(kNan);
  request.mutable_config()->set_top_p(2);
  request.add_steering()->set_objective("Bad Name");
  EXPECT_EQ(Fields(ParseGenerateRequest(request).status()),
            (Strings{"model", "input", "config.temperature", "config.top_p", "steering[0].objective"}));
}

TEST(ValidateGenerate, ImagesAreUnsupportedUnlessSomethingElseIsWrong) {
  v1::GenerateRequest request = Good();
  request.mutable_conversation()->mutable_contents(1)->add_parts()->mutable_image()->set_data("png");
  EXPECT_EQ(GetErrorDetail(ParseGenerateRequest(request).status()).reason, "IMAGE_UNSUPPORTED");
  request.mutable_config()->set_top_p(2);
  EXPECT_EQ(Fields(ParseGenerateRequest(request).status()), Strings{"config.top_p"});
}

TEST(ValidateScore, ChecksContinuations) {
  v1::ScoreRequest request;
  request.set_model("models/m");
  request.set_prompt("p");
  request.add_continuations(" A");
  const auto call = ParseScoreRequest(request);
  ASSERT_TRUE(call.ok());
  EXPECT_EQ(call->continuations, std::vector<std::string>{" A"});
  request.add_continuations("");
  EXPECT_EQ(Fields(ParseScoreRequest(request).status()), Strings{"continuations[1]"});
  request.clear_continuations();
  EXPECT_EQ(Fields(ParseScoreRequest(request).status()), Strings{"continuations"});
  for (int i = 0; i < 129; ++i) request.add_continuations("x");
  EXPECT_EQ(Fields(ParseScoreRequest(request).status()), Strings{"continuations"});
}

TEST(ValidateCountTokens, NeedsModelAndInput) {
  EXPECT_EQ(Fields(ParseCountTokensRequest({}).status()), (Strings{"model", "input"}));
}

TEST(ValidateDrift, DefaultsAndBounds) {
  v1::EvaluateDriftRequest request;
  request.set_parent("models/m");
  request.add_steering()->set_objective("calm");
  const auto call = ParseEvaluateDriftRequest(request);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->shots, 0);
  EXPECT_EQ(call->max_text_tokens, 2048);
  request.set_shots(6);
  request.set_max_items(-1);
  request.set_max_text_tokens(-1);
  request.set_suite("has blank");
  request.clear_steering();
  EXPECT_EQ(Fields(ParseEvaluateDriftRequest(request).status()),
            (Strings{"shots", "max_items", "max_text_tokens", "suite", "steering"}));
}

}  // namespace
}  // namespace trimtab
