#include "server/metrics/grpc_metrics.h"

#include "absl/strings/str_cat.h"

namespace trimtab {
namespace {

constexpr size_t kMaxMethods = 64;

// In the order of grpc::StatusCode, spelled as go-grpc-middleware does.
constexpr const char* kCodeNames[] = {
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};

}  // namespace

GrpcMetrics::Series GrpcMetrics::Find(const RpcMethod& method) {
  absl::MutexLock lock(&mutex_);
  std::string key = absl::StrCat(method.type, " ", method.service, "/", method.method);
  std::map<std::string, std::string> labels = {
      {"grpc_type", method.type}, {"grpc_service", method.service}, {"grpc_method", method.method}};
  if (series_.size() >= kMaxMethods && !series_.contains(key)) {
    key = "unknown";
    for (auto& [name, value] : labels) value = "unknown";
  }
  Series& series = series_[key];
  if (series.started != nullptr) return series;
  series.started = &families_.grpc_started.Add(labels);
  series.received = &families_.grpc_received.Add(labels);
  series.sent = &families_.grpc_sent.Add(labels);
  series.handling = &families_.grpc_handling.Add(labels, RequestBuckets());
  for (int code = 0; code < kCodes; ++code) {
    labels["grpc_code"] = kCodeNames[code];
    series.handled[code] = &families_.grpc_handled.Add(labels);
  }
  return series;
}

void GrpcMetrics::AddMethod(const RpcMethod& method) { Find(method); }
void GrpcMetrics::OnRpcStarted(const RpcMethod& method) { Find(method).started->Increment(); }
void GrpcMetrics::OnRpcMessageReceived(const RpcMethod& method) { Find(method).received->Increment(); }
void GrpcMetrics::OnRpcMessageSent(const RpcMethod& method) { Find(method).sent->Increment(); }

void GrpcMetrics::OnRpcHandled(const RpcMethod& method, grpc::StatusCode code, absl::Duration duration) {
  const Series series = Find(method);
  const int index = static_cast<int>(code);
  series.handled[index >= 0 && index < kCodes ? index : static_cast<int>(grpc::StatusCode::UNKNOWN)]->Increment();
  series.handling->Observe(absl::ToDoubleSeconds(duration));
}

}  // namespace trimtab
