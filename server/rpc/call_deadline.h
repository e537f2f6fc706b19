// The deadline that a caller gave a call.
#ifndef TRIMTAB_SERVER_RPC_CALL_DEADLINE_H_
#define TRIMTAB_SERVER_RPC_CALL_DEADLINE_H_

#include <grpcpp/server_context.h>

#include <chrono>

#include "absl/time/time.h"

namespace trimtab {

// Infinite without one.
inline absl::Time CallDeadline(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_CALL_DEADLINE_H_
