// Errors with a machine-readable reason. A reason, its metadata and field violations travel inside absl::Status as
// payloads; server/rpc/grpc_status turns them into google.rpc.ErrorInfo, BadRequest, ResourceInfo and RetryInfo.
// Any thread.
#ifndef TRIMTAB_SERVER_BASE_ERROR_H_
#define TRIMTAB_SERVER_BASE_ERROR_H_

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace trimtab {

// The reasons of the API (docs/errors.md). The name on the wire is the constant's own text.
inline constexpr std::string_view kFieldInvalid = "FIELD_INVALID";
inline constexpr std::string_view kPromptTooLong = "PROMPT_TOO_LONG";
inline constexpr std::string_view kImageUnsupported = "IMAGE_UNSUPPORTED";
inline constexpr std::string_view kPairsDegenerate = "PAIRS_DEGENERATE";
inline constexpr std::string_view kModelNotFound = "MODEL_NOT_FOUND";
inline constexpr std::string_view kModelNotReady = "MODEL_NOT_READY";
inline constexpr std::string_view kModelExists = "MODEL_EXISTS";
inline constexpr std::string_view kLoadingDisabled = "LOADING_DISABLED";
inline constexpr std::string_view kObjectiveNotFound = "OBJECTIVE_NOT_FOUND";
inline constexpr std::string_view kRevisionNotFound = "REVISION_NOT_FOUND";
inline constexpr std::string_view kResourceNotFound = "RESOURCE_NOT_FOUND";  // operations, drift reports, methods
inline constexpr std::string_view kObjectiveNotReady = "OBJECTIVE_NOT_READY";
inline constexpr std::string_view kFingerprintMismatch = "FINGERPRINT_MISMATCH";
inline constexpr std::string_view kStrengthOutOfRange = "STRENGTH_OUT_OF_RANGE";
inline constexpr std::string_view kObjectiveExists = "OBJECTIVE_EXISTS";
inline constexpr std::string_view kEtagMismatch = "ETAG_MISMATCH";
inline constexpr std::string_view kMethodUnknown = "METHOD_UNKNOWN";
inline constexpr std::string_view kMethodConfigMismatch = "METHOD_CONFIG_MISMATCH";
inline constexpr std::string_view kQueueFull = "QUEUE_FULL";
inline constexpr std::string_view kJobQueueFull = "JOB_QUEUE_FULL";
inline constexpr std::string_view kQuotaExceeded = "QUOTA_EXCEEDED";
inline constexpr std::string_view kKvCacheTooSmall = "KV_CACHE_TOO_SMALL";
inline constexpr std::string_view kDeviceOutOfMemory = "DEVICE_OUT_OF_MEMORY";
inline constexpr std::string_view kEngineUnhealthy = "ENGINE_UNHEALTHY";
inline constexpr std::string_view kShuttingDown = "SHUTTING_DOWN";
inline constexpr std::string_view kStorageUnavailable = "STORAGE_UNAVAILABLE";  // the registry's disk or file
inline constexpr std::string_view kOperationNotDone = "OPERATION_NOT_DONE";
inline constexpr std::string_view kModelFileInvalid = "MODEL_FILE_INVALID";
inline constexpr std::string_view kNonFinite = "NON_FINITE";  // NaN or infinity in a request's activations
inline constexpr std::string_view kInternal = "INTERNAL";
inline constexpr std::string_view kCancelled = "CANCELLED";
inline constexpr std::string_view kDeadlineExceeded = "DEADLINE_EXCEEDED";

struct FieldViolation {
  std::string field;        // path in the request, for example "steering[1].strength"
  std::string description;  // what to change, lower case, no prompt text

  bool operator==(const FieldViolation&) const = default;
};

// What a status carries beside its code and message.
struct ErrorDetail {
  std::string reason;
  std::map<std::string, std::string> metadata;
  std::vector<FieldViolation> violations;
  std::optional<absl::Duration> retry_after;  // set on overload
  std::string resource_type, resource_name;   // set on missing names

  bool operator==(const ErrorDetail&) const = default;
};

// A status of `code` whose detail holds `reason` and `metadata`.
absl::Status ReasonError(absl::StatusCode code, std::string_view reason, std::string_view message,
                         std::map<std::string, std::string> metadata = {});

// NOT_FOUND with ResourceInfo: the caller named something that is not there.
absl::Status NotFoundError(std::string_view reason, std::string_view resource_type, std::string_view resource_name);

// RESOURCE_EXHAUSTED with RetryInfo.
absl::Status OverloadError(std::string_view reason, std::string_view message, absl::Duration retry_after);

// INVALID_ARGUMENT, FIELD_INVALID with every violation; the message lists them. `violations` must not be empty.
absl::Status FieldError(std::vector<FieldViolation> violations);

// Attaches `detail` to `status` (which must not be OK), replacing an earlier one.
void SetErrorDetail(absl::Status& status, const ErrorDetail& detail);

// The detail that `status` carries; an empty reason when it carries none.
ErrorDetail GetErrorDetail(const absl::Status& status);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_BASE_ERROR_H_
