// Requests to load and unload models.
#include <string>

#include "absl/strings/str_cat.h"
#include "server/rpc/validate.h"

namespace trimtab {
namespace {

constexpr size_t kMaxPathBytes = 4096;
constexpr int64_t kMaxCacheMib = int64_t{1} << 20;
constexpr absl::Duration kMaxDrainTimeout = absl::Hours(1);

}  // namespace

absl::Status ParseLoadModelRequest(const v1::LoadModelRequest& request) {
  FieldChecker checker;
  if (!IsValidId(request.model_id())) {
    checker.Fail("model_id", absl::StrCat("must match ", absl::string_view(kIdPattern.data(), kIdPattern.size())));
  }
  if (checker.Text("path", request.path(), 1, kMaxPathBytes) && request.path().find('\0') != std::string::npos) {
    checker.Fail("path", "must not hold a zero byte");
  }
  checker.Token("request_id", request.request_id(), kMaxRequestIdBytes);
  if (request.has_kv_cache_mib()) checker.Integer("kv_cache_mib", request.kv_cache_mib(), 1, kMaxCacheMib);
  const std::string& precision = request.precision();
  if (!precision.empty() && precision != "auto" && precision != "float32" && precision != "bfloat16" &&
      precision != "file") {
    checker.Fail("precision", "must be empty, auto, float32, bfloat16 or file");
  }
  return checker.status();
}

absl::StatusOr<UnloadModelCall> ParseUnloadModelRequest(const v1::UnloadModelRequest& request) {
  FieldChecker checker;
  UnloadModelCall call;
  call.model = ParseModel(checker, "name", request.name());
  checker.Token("request_id", request.request_id(), kMaxRequestIdBytes);
  if (request.has_drain_timeout()) {
    const google::protobuf::Duration& timeout = request.drain_timeout();
    call.drain_timeout = absl::Seconds(timeout.seconds()) + absl::Nanoseconds(timeout.nanos());
    if (*call.drain_timeout < absl::ZeroDuration() || *call.drain_timeout > kMaxDrainTimeout) {
      checker.Fail("drain_timeout", "must be 0 to 1 hour");
    }
  }
  if (!checker.ok()) return checker.status();
  return call;
}

}  // namespace trimtab
