#include "server/base/error.h"

#include <gtest/gtest.h>

namespace trimtab {
namespace {

TEST(ErrorTest, CarriesReasonAndMetadata) {
  const absl::Status status = ReasonError(absl::StatusCode::kInvalidArgument, kPromptTooLong, "the prompt is too long",
                                          {{"tokens", "9000"}, {"limit", "8192"}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "the prompt is too long");
  const ErrorDetail detail = GetErrorDetail(status);
  EXPECT_EQ(detail.reason, "PROMPT_TOO_LONG");
  EXPECT_EQ(detail.metadata.at("tokens"), "9000");
  EXPECT_EQ(detail.metadata.at("limit"), "8192");
  EXPECT_FALSE(detail.retry_after.has_value());
}

TEST(ErrorTest, NamesWhatIsMissing) {
  const absl::Status status = NotFoundError(kObjectiveNotFound, "objective", "models/m/objectives/calm");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "objective \"models/m/objectives/calm\" does not exist");
  const ErrorDetail detail = GetErrorDetail(status);
  EXPECT_EQ(detail.reason, kObjectiveNotFound);
  EXPECT_EQ(detail.resource_type, "objective");
  EXPECT_EQ(detail.resource_name, "models/m/objectives/calm");
}

TEST(ErrorTest, OverloadSaysWhenToRetry) {
  const absl::Status status = OverloadError(kQueueFull, "the queue is full", absl::Milliseconds(1500));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorDetail(status).retry_after, absl::Milliseconds(1500));
}

TEST(ErrorTest, ListsEveryViolation) {
  const std::vector<FieldViolation> violations = {{"config.top_p", "must be above 0"}, {"model", "is missing"}};
  const absl::Status status = FieldError(violations);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "config.top_p: must be above 0; model: is missing");
  EXPECT_EQ(GetErrorDetail(status).reason, kFieldInvalid);
  EXPECT_EQ(GetErrorDetail(status).violations, violations);
}

TEST(ErrorTest, ADetailRoundTripsAndReplacesAnEarlierOne) {
  absl::Status status = ReasonError(absl::StatusCode::kAborted, kInternal, "message");
  const ErrorDetail detail{.reason = std::string(kEtagMismatch),
                           .metadata = {{"a", "b"}},
                           .violations = {{"f", "d"}},
                           .retry_after = absl::Seconds(2),
                           .resource_type = "t",
                           .resource_name = "n"};
  SetErrorDetail(status, detail);
  EXPECT_EQ(GetErrorDetail(status), detail);
}

TEST(ErrorTest, AStatusWithoutDetailHasNoReason) {
  EXPECT_EQ(GetErrorDetail(absl::OkStatus()), ErrorDetail{});
  EXPECT_EQ(GetErrorDetail(absl::InternalError("x")), ErrorDetail{});
}

TEST(ErrorTest, InvalidUtf8DoesNotBreakTheError) {
  const absl::Status status = NotFoundError(kModelNotFound, "model", "models/\xff\xfe");
  EXPECT_EQ(GetErrorDetail(status).reason, kModelNotFound);
  EXPECT_EQ(GetErrorDetail(status).resource_name, "models/\xef\xbf\xbd\xef\xbf\xbd");
}

}  // namespace
}  // namespace trimtab
