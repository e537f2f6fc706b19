#include "server/rpc/grpc_status.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "google/rpc/error_details.pb.h"
#include "server/base/error.h"
#include "server/rpc/proto_time.h"

namespace trimtab {
namespace {

constexpr size_t kMaxMetadataValueBytes = 200;

std::string_view ToStd(absl::string_view text) { return std::string_view(text.data(), text.size()); }

// At most `limit` bytes of `text`, cut between characters and ending with "..." when cut.
std::string Cut(std::string_view text, size_t limit) {
  if (text.size() <= limit) return std::string(text);
  size_t end = limit - 3;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "...";
}

// The reason of a status that was made without one.
std::string_view ReasonOfCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kCancelled:
      return kCancelled;
    case absl::StatusCode::kDeadlineExceeded:
      return kDeadlineExceeded;
    case absl::StatusCode::kInvalidArgument:
      return kFieldInvalid;
    case absl::StatusCode::kNotFound:
      return kResourceNotFound;
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDataLoss:
      return kInternal;
    case absl::StatusCode::kFailedPrecondition:
      return "FAILED_PRECONDITION";
    case absl::StatusCode::kResourceExhausted:
      return kQuotaExceeded;
    case absl::StatusCode::kUnavailable:
      return "UNAVAILABLE";
    case absl::StatusCode::kAborted:
      return "ABORTED";
    case absl::StatusCode::kUnimplemented:
      return "UNIMPLEMENTED";
    case absl::StatusCode::kPermissionDenied:
      return "PERMISSION_DENIED";
    case absl::StatusCode::kUnauthenticated:
      return "UNAUTHENTICATED";
    default:
      return kInternal;
  }
}

google::rpc::ErrorInfo MakeErrorInfo(const ErrorDetail& detail, absl::StatusCode code) {
  google::rpc::ErrorInfo info;
  info.set_reason(detail.reason.empty() ? std::string(ReasonOfCode(code)) : detail.reason);
  info.set_domain(std::string(kErrorDomain));
  for (const auto& [key, value] : detail.metadata) {
    (*info.mutable_metadata())[key] = Cut(value, kMaxMetadataValueBytes);
    if (info.ByteSizeLong() > kMaxErrorDetailsBytes / 2) {
      info.mutable_metadata()->erase(key);
      break;
    }
  }
  return info;
}

// As many violations as fit into `budget` bytes.
google::rpc::BadRequest MakeBadRequest(const std::vector<FieldViolation>& violations, size_t budget) {
  google::rpc::BadRequest bad;
  constexpr size_t kReserve = 48;  // for the violation that counts the rest
  for (size_t i = 0; i < violations.size(); ++i) {
    auto* entry = bad.add_field_violations();
    entry->set_field(Cut(violations[i].field, kMaxMetadataValueBytes));
    entry->set_description(Cut(violations[i].description, kMaxMetadataValueBytes));
    if (bad.ByteSizeLong() + kReserve > budget) {
      entry->set_field("");
      entry->set_description(absl::StrCat("and ", violations.size() - i, " more"));
      break;
    }
  }
  return bad;
}

}  // namespace

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  google::rpc::Status rpc;
  rpc.set_code(static_cast<int>(status.code()));
  if (status.ok()) return rpc;
  rpc.set_message(Cut(ToStd(status.message()), kMaxErrorMessageBytes));
  const ErrorDetail detail = GetErrorDetail(status);
  rpc.add_details()->PackFrom(MakeErrorInfo(detail, status.code()));
  if (detail.retry_after) {
    google::rpc::RetryInfo retry;
    *retry.mutable_retry_delay() = ToProto(*detail.retry_after);
    rpc.add_details()->PackFrom(retry);
  }
  if (!detail.resource_type.empty() || !detail.resource_name.empty()) {
    google::rpc::ResourceInfo resource;
    resource.set_resource_type(detail.resource_type);
    resource.set_resource_name(Cut(detail.resource_name, kMaxMetadataValueBytes));
    rpc.add_details()->PackFrom(resource);
  }
  if (!detail.violations.empty()) {
    constexpr size_t kWrapping = 80;  // type URL and lengths of the Any
    const size_t used = rpc.ByteSizeLong() + kWrapping;
    rpc.add_details()->PackFrom(
        MakeBadRequest(detail.violations, kMaxErrorDetailsBytes - std::min<size_t>(used, 1800)));
  }
  return rpc;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status rpc = ToRpcStatus(status);
  return grpc::Status(static_cast<grpc::StatusCode>(rpc.code()), rpc.message(), rpc.SerializeAsString());
}

absl::Status FromRpcStatus(const google::rpc::Status& rpc) {
  if (rpc.code() == 0) return absl::OkStatus();
  const bool known = rpc.code() > 0 && rpc.code() <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  absl::Status status(known ? static_cast<absl::StatusCode>(rpc.code()) : absl::StatusCode::kUnknown, rpc.message());
  ErrorDetail detail;
  google::rpc::ErrorInfo info;
  google::rpc::RetryInfo retry;
  google::rpc::ResourceInfo resource;
  google::rpc::BadRequest bad;
  for (const google::protobuf::Any& any : rpc.details()) {
    if (any.UnpackTo(&info)) {
      detail.reason = info.reason();
      detail.metadata.insert(info.metadata().begin(), info.metadata().end());
    } else if (any.UnpackTo(&retry)) {
      detail.retry_after =
          absl::Seconds(retry.retry_delay().seconds()) + absl::Nanoseconds(retry.retry_delay().nanos());
    } else if (any.UnpackTo(&resource)) {
      detail.resource_type = resource.resource_type();
      detail.resource_name = resource.resource_name();
    } else if (any.UnpackTo(&bad)) {
      for (const auto& violation : bad.field_violations()) {
        detail.violations.push_back({violation.field(), violation.description()});
      }
    }
  }
  if (detail != ErrorDetail{}) SetErrorDetail(status, detail);
  return status;
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  google::rpc::Status rpc;
  if (status.error_details().empty() || !rpc.ParseFromString(status.error_details()) || rpc.code() == 0) {
    rpc.Clear();
  }
  // The transport's own code and message have the last word.
  rpc.set_code(status.error_code());
  rpc.set_message(status.error_message());
  return FromRpcStatus(rpc);
}

}  // namespace trimtab
