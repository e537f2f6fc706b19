#include "server/rpc/grpc_status.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "server/base/error.h"

namespace trimtab {
namespace {

template <typename Detail>
Detail Find(const google::rpc::Status& status) {
  Detail detail;
  for (const google::protobuf::Any& any : status.details()) {
    if (any.UnpackTo(&detail)) return detail;
  }
  return Detail();
}

google::rpc::Status Details(const grpc::Status& status) {
  google::rpc::Status rpc;
  EXPECT_TRUE(rpc.ParseFromString(status.error_details()));
  return rpc;
}

TEST(GrpcStatus, OkStaysOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
  EXPECT_EQ(ToRpcStatus(absl::OkStatus()).code(), 0);
}

TEST(GrpcStatus, CarriesReasonMetadataAndDomain) {
  const grpc::Status status = ToGrpcStatus(ReasonError(absl::StatusCode::kInvalidArgument, kPromptTooLong,
                                                       "prompt is too long", {{"tokens", "9000"}, {"limit", "8192"}}));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "prompt is too long");
  const google::rpc::Status rpc = Details(status);
  EXPECT_EQ(rpc.code(), 3);
  EXPECT_EQ(rpc.message(), "prompt is too long");
  const auto info = Find<google::rpc::ErrorInfo>(rpc);
  EXPECT_EQ(info.reason(), "PROMPT_TOO_LONG");
  EXPECT_EQ(info.domain(), "trimtab");
  EXPECT_EQ(info.metadata().at("tokens"), "9000");
}

TEST(GrpcStatus, AddsTheDetailThatFitsTheError) {
  const auto bad = Find<google::rpc::BadRequest>(
      Details(ToGrpcStatus(FieldError({{"model", "must be set"}, {"config.top_p", "must be above 0"}}))));
  ASSERT_EQ(bad.field_violations_size(), 2);
  EXPECT_EQ(bad.field_violations(1).field(), "config.top_p");
  EXPECT_EQ(bad.field_violations(1).description(), "must be above 0");

  const auto retry =
      Find<google::rpc::RetryInfo>(Details(ToGrpcStatus(OverloadError(kQueueFull, "full", absl::Milliseconds(1500)))));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 500'000'000);

  const auto resource = Find<google::rpc::ResourceInfo>(
      Details(ToGrpcStatus(NotFoundError(kObjectiveNotFound, "objective", "models/m/objectives/x"))));
  EXPECT_EQ(resource.resource_type(), "objective");
  EXPECT_EQ(resource.resource_name(), "models/m/objectives/x");
}

TEST(GrpcStatus, EveryCodeHasAReason) {
  for (int code = 1; code <= 16; ++code) {
    const grpc::Status status = ToGrpcStatus(absl::Status(static_cast<absl::StatusCode>(code), "x"));
    EXPECT_EQ(status.error_code(), code);
    const auto info = Find<google::rpc::ErrorInfo>(Details(status));
    EXPECT_FALSE(info.reason().empty()) << code;
    EXPECT_EQ(info.domain(), "trimtab");
  }
}

TEST(GrpcStatus, RoundTripKeepsAllOfIt) {
  const std::vector<absl::Status> statuses = {
      ReasonError(absl::StatusCode::kFailedPrecondition, kStrengthOutOfRange, "too strong", {{"limit", "0.5"}}),
      NotFoundError(kModelNotFound, "model", "models/x"),
      OverloadError(kJobQueueFull, "full", absl::Seconds(3)),
      FieldError({{"a", "b"}, {"c", "d"}}),
  };
  for (const absl::Status& status : statuses) {
    const absl::Status back = FromGrpcStatus(ToGrpcStatus(status));
    EXPECT_EQ(back.code(), status.code());
    EXPECT_EQ(back.message(), status.message());
    EXPECT_EQ(GetErrorDetail(back), GetErrorDetail(status));
    EXPECT_EQ(GetErrorDetail(FromRpcStatus(ToRpcStatus(status))), GetErrorDetail(status));
  }
}

TEST(GrpcStatus, ForeignStatusesKeepCodeAndMessage) {
  const absl::Status plain = FromGrpcStatus(grpc::Status(grpc::StatusCode::UNAVAILABLE, "connection refused"));
  EXPECT_EQ(plain.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(plain.message(), "connection refused");
  EXPECT_TRUE(GetErrorDetail(plain).reason.empty());
  const absl::Status garbage = FromGrpcStatus(grpc::Status(grpc::StatusCode::INTERNAL, "x", "\xFF\xFFgarbage"));
  EXPECT_EQ(garbage.code(), absl::StatusCode::kInternal);
  google::rpc::Status odd;
  odd.set_code(77);
  EXPECT_EQ(FromRpcStatus(odd).code(), absl::StatusCode::kUnknown);
}

// Headers are base64 and percent-encoded on the wire; all of it must stay far below the peers' limit of 8 KiB.
size_t WireBytes(const grpc::Status& status) {
  size_t message = 0;
  for (const char c : status.error_message()) message += c > 0x20 && c < 0x7F && c != '%' ? 1 : 3;
  return message + (status.error_details().size() + 2) / 3 * 4;
}

TEST(GrpcStatus, StaysSmall) {
  std::vector<FieldViolation> violations;
  for (int i = 0; i < 5000; ++i) {
    violations.push_back({"objective.pairs[" + std::to_string(i) + "].preferred", std::string(300, 'x')});
  }
  const grpc::Status many = ToGrpcStatus(FieldError(violations));
  EXPECT_LT(WireBytes(many), 4096u);
  const auto bad = Find<google::rpc::BadRequest>(Details(many));
  ASSERT_GT(bad.field_violations_size(), 2);
  const std::string last = bad.field_violations(bad.field_violations_size() - 1).description();
  EXPECT_EQ(last, "and " + std::to_string(5001 - bad.field_violations_size()) + " more");

  std::map<std::string, std::string> metadata;
  for (int i = 0; i < 200; ++i) metadata["key" + std::to_string(i)] = std::string(1000, 'v');
  std::string umlauts;
  for (int i = 0; i < 3000; ++i) umlauts += "\xC3\xA4";
  const grpc::Status wide = ToGrpcStatus(ReasonError(absl::StatusCode::kInternal, kInternal, umlauts, metadata));
  EXPECT_LT(WireBytes(wide), 4096u);
  EXPECT_EQ(wide.error_message().substr(wide.error_message().size() - 5), "\xC3\xA4...");
  EXPECT_EQ(Find<google::rpc::ErrorInfo>(Details(wide)).reason(), "INTERNAL");
}

}  // namespace
}  // namespace trimtab
