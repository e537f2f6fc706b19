#include "tools/trimctl/command.h"

#include <iostream>

#include "server/base/error.h"
#include "tools/trimctl/json_output.h"

namespace trimtab {
namespace {

// Only inside this program: the server knows no such reason.
constexpr std::string_view kUsageReason = "USAGE";

}  // namespace

void Cli::Print(const google::protobuf::Message& message, const std::string& text) const {
  std::cout << (json ? ToJson(message) : text) << std::flush;
}

absl::Status UsageError(std::string_view message) {
  return ReasonError(absl::StatusCode::kInvalidArgument, kUsageReason, message);
}

bool IsUsageError(const absl::Status& status) { return GetErrorDetail(status).reason == kUsageReason; }

absl::Status AsUsageError(const absl::Status& status) {
  return status.ok() ? status : UsageError(std::string(status.message()));
}

}  // namespace trimtab
