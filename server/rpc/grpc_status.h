// The one converter between absl::Status with its ErrorDetail and what goes over the wire: grpc::Status with a
// google.rpc.Status in grpc-status-details-bin. ErrorInfo{reason, domain "trimtab"} is always there; BadRequest,
// RetryInfo and ResourceInfo when the detail has them. Any thread.
#ifndef TRIMTAB_SERVER_RPC_GRPC_STATUS_H_
#define TRIMTAB_SERVER_RPC_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include <string_view>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace trimtab {

inline constexpr std::string_view kErrorDomain = "trimtab";

// Bounds that keep a status far below the 8 KiB that HTTP/2 peers accept as headers: together under 4 KB when encoded.
inline constexpr int kMaxErrorMessageBytes = 400;
inline constexpr int kMaxErrorDetailsBytes = 2048;

// The status as stored in operations and objectives. Messages, metadata and violations beyond the bounds are cut; a cut
// list of violations ends with one that says how many more there are. A status without a reason gets one by its code.
google::rpc::Status ToRpcStatus(const absl::Status& status);
grpc::Status ToGrpcStatus(const absl::Status& status);

// The reverse, for clients and for stored errors. Unknown details are ignored; a malformed one leaves code and message.
absl::Status FromRpcStatus(const google::rpc::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_GRPC_STATUS_H_
