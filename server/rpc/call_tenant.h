// Who a call is from, as far as fairness and bounds go: the metadata entry x-trimtab-tenant.
#ifndef TRIMTAB_SERVER_RPC_CALL_TENANT_H_
#define TRIMTAB_SERVER_RPC_CALL_TENANT_H_

#include <grpcpp/server_context.h>

#include <iterator>
#include <string>

#include "absl/status/statusor.h"
#include "server/base/error.h"
#include "server/base/resource_name.h"

namespace trimtab {

inline constexpr char kTenantMetadataKey[] = "x-trimtab-tenant";

// Empty without one. INVALID_ARGUMENT when it is not an id or given twice. The server believes it: where callers are
// not trusted, the gateway in front sets it.
inline absl::StatusOr<std::string> CallTenant(const grpc::CallbackServerContext& context) {
  const auto [begin, end] = context.client_metadata().equal_range(kTenantMetadataKey);
  if (begin == end) return std::string();
  std::string tenant(begin->second.data(), begin->second.size());
  if (std::next(begin) != end || !IsValidId(tenant)) {
    return FieldError({{kTenantMetadataKey, "must be one id: lower-case letters, digits and hyphens, at most 63"}});
  }
  return tenant;
}

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_CALL_TENANT_H_
