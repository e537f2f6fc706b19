#include "server/base/error.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace trimtab {
namespace {

constexpr char kPayloadUrl[] = "trimtab/error_detail";

absl::string_view ToAbsl(std::string_view text) { return absl::string_view(text.data(), text.size()); }

}  // namespace

absl::Status ReasonError(absl::StatusCode code, std::string_view reason, std::string_view message,
                         std::map<std::string, std::string> metadata) {
  absl::Status status(code, ToAbsl(message));
  SetErrorDetail(status, ErrorDetail{.reason = std::string(reason), .metadata = std::move(metadata)});
  return status;
}

absl::Status NotFoundError(std::string_view reason, std::string_view resource_type, std::string_view resource_name) {
  absl::Status status(absl::StatusCode::kNotFound,
                      absl::StrCat(ToAbsl(resource_type), " \"", ToAbsl(resource_name), "\" does not exist"));
  SetErrorDetail(status, ErrorDetail{.reason = std::string(reason),
                                     .resource_type = std::string(resource_type),
                                     .resource_name = std::string(resource_name)});
  return status;
}

absl::Status OverloadError(std::string_view reason, std::string_view message, absl::Duration retry_after) {
  absl::Status status(absl::StatusCode::kResourceExhausted, ToAbsl(message));
  SetErrorDetail(status, ErrorDetail{.reason = std::string(reason), .retry_after = retry_after});
  return status;
}

absl::Status FieldError(std::vector<FieldViolation> violations) {
  std::string message = absl::StrJoin(violations, "; ", [](std::string* out, const FieldViolation& violation) {
    absl::StrAppend(out, violation.field, ": ", violation.description);
  });
  absl::Status status(absl::StatusCode::kInvalidArgument, message);
  SetErrorDetail(status, ErrorDetail{.reason = std::string(kFieldInvalid), .violations = std::move(violations)});
  return status;
}

void SetErrorDetail(absl::Status& status, const ErrorDetail& detail) {
  nlohmann::json json = {{"reason", detail.reason},
                         {"metadata", detail.metadata},
                         {"resource_type", detail.resource_type},
                         {"resource_name", detail.resource_name}};
  for (const FieldViolation& violation : detail.violations) {
    json["violations"].push_back({violation.field, violation.description});
  }
  if (detail.retry_after) json["retry_after_ms"] = absl::ToInt64Milliseconds(*detail.retry_after);
  // Invalid UTF-8 in a caller's text must not make the error itself fail.
  status.SetPayload(kPayloadUrl, absl::Cord(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
}

ErrorDetail GetErrorDetail(const absl::Status& status) {
  ErrorDetail detail;
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload) return detail;
  const nlohmann::json json = nlohmann::json::parse(std::string(*payload), nullptr, false);
  if (!json.is_object()) return detail;
  detail.reason = json.value("reason", "");
  detail.metadata = json.value("metadata", std::map<std::string, std::string>{});
  detail.resource_type = json.value("resource_type", "");
  detail.resource_name = json.value("resource_name", "");
  if (json.contains("violations")) {
    for (const nlohmann::json& violation : json["violations"]) {
      detail.violations.push_back({violation[0].get<std::string>(), violation[1].get<std::string>()});
    }
  }
  if (json.contains("retry_after_ms")) detail.retry_after = absl::Milliseconds(json["retry_after_ms"].get<int64_t>());
  return detail;
}

}  // namespace trimtab
