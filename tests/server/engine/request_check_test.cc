#include "server/engine/request_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "server/base/error.h"
#include "tests/server/engine/fake_runner.h"

namespace trimtab {
namespace {

class RequestCheckTest : public testing::Test {
 protected:
  RequestCheckTest() {
    spec_.vocab_size = 10;
    spec_.hidden_size = 2;
    spec_.layers.resize(1);
    request_.tokens = {1, 2, 3};
    request_.prompt_length = 3;
    request_.sink = std::make_shared<FakeSink>();
  }

  absl::Status Check() const { return CheckRequest(request_, spec_, limits_); }
  std::set<std::string> Fields() const {
    std::set<std::string> fields;
    for (const FieldViolation& violation : GetErrorDetail(Check()).violations) fields.insert(violation.field);
    return fields;
  }

  ModelSpec spec_;
  RequestLimits limits_{.max_context = 8, .cache_tokens = 16};
  Request request_;
};

TEST_F(RequestCheckTest, AcceptsAnOrdinaryRequest) { EXPECT_TRUE(Check().ok()) << Check(); }

TEST_F(RequestCheckTest, NamesEveryViolation) {
  request_.tokens = {1, 10, -1};
  request_.sampling.temperature = std::nanf("");
  request_.sampling.top_p = 0;
  request_.sampling.top_k = -1;
  request_.sampling.min_p = 1;
  request_.sampling.repetition_penalty = 0;
  request_.sampling.max_output_tokens = 0;
  request_.sampling.logprobs = 21;
  EXPECT_EQ(Fields(), (std::set<std::string>{"tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty",
                                             "max_output_tokens", "logprobs"}));
  EXPECT_EQ(GetErrorDetail(Check()).reason, kFieldInvalid);
}

TEST_F(RequestCheckTest, ChecksTokensAndPromptLength) {
  request_.tokens.clear();
  EXPECT_EQ(Fields(), (std::set<std::string>{"tokens", "prompt_length"}));
  request_.tokens = {1, 2};
  EXPECT_EQ(Fields(), std::set<std::string>{"prompt_length"});
  request_.sink = nullptr;
  request_.prompt_length = 2;
  EXPECT_EQ(Fields(), std::set<std::string>{"sink"});
}

TEST_F(RequestCheckTest, ChecksScoreRequests) {
  request_.score = true;
  EXPECT_EQ(Fields(), std::set<std::string>{"prompt_length"}) << "nothing to score";
  request_.prompt_length = 0;
  EXPECT_EQ(Fields(), std::set<std::string>{"prompt_length"});
  request_.prompt_length = 1;
  request_.sampling.temperature = -1;
  EXPECT_TRUE(Check().ok()) << "nothing is sampled";
  request_.score_watch = {{1}};
  request_.score_top = 65;
  EXPECT_EQ(Fields(), (std::set<std::string>{"score_watch", "score_top"}));
  request_.score_top = 64;
  request_.score_watch = {{1}, {10}};
  EXPECT_EQ(Fields(), std::set<std::string>{"score_watch"});
  request_.score_watch = {{1}, {}};
  EXPECT_TRUE(Check().ok());
}

TEST_F(RequestCheckTest, ChecksThePlanAgainstTheModel) {
  request_.plan = FakePlan({{FakeVector(0), 1}}, ApplyTo::kAll);
  EXPECT_TRUE(Check().ok());
  request_.plan = FakePlan({{FakeVector(0), 1}, {FakeVector(0), INFINITY}}, ApplyTo::kAll);
  EXPECT_EQ(Fields(), std::set<std::string>{"steering[1].strength"});
  request_.plan = FakePlan({{FakeVector(0), 1}}, ApplyTo::kAll);
  spec_.hidden_size = 4;
  EXPECT_EQ(Fields(), std::set<std::string>{"steering[0]"});
  spec_.hidden_size = 2;
  spec_.layers.clear();
  EXPECT_EQ(Fields(), std::set<std::string>{"steering[0]"});
}

TEST_F(RequestCheckTest, LeavesRoomForOneTokenOfOutput) {
  request_.tokens.assign(7, 1);
  request_.prompt_length = 7;
  EXPECT_TRUE(Check().ok());
  request_.tokens.assign(8, 1);
  request_.prompt_length = 8;
  const ErrorDetail detail = GetErrorDetail(Check());
  EXPECT_EQ(detail.reason, kPromptTooLong);
  EXPECT_EQ(detail.metadata.at("tokens"), "8");
  EXPECT_EQ(detail.metadata.at("limit"), "7");
  request_.score = true;
  request_.prompt_length = 1;
  EXPECT_TRUE(Check().ok()) << "a score request needs none";
}

TEST_F(RequestCheckTest, SaysWhenTheCacheIsTooSmall) {
  limits_.cache_tokens = 3;
  EXPECT_EQ(GetErrorDetail(Check()).reason, kKvCacheTooSmall);
  EXPECT_EQ(Check().code(), absl::StatusCode::kResourceExhausted);
  limits_.cache_tokens = 4;
  EXPECT_TRUE(Check().ok());
}

}  // namespace
}  // namespace trimtab
