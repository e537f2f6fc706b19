#include "server/engine/fair_order.h"

#include <algorithm>

namespace trimtab {
namespace {

size_t Index(Priority priority) { return static_cast<size_t>(priority) - 1; }

}  // namespace

Tenant* TenantOrder::Enter(const Request& request, int64_t cost, int64_t& start) {
  Tenant& tenant = tenants_[request.tenant];
  ++tenant.requests;
  const size_t priority = Index(request.priority);
  start = std::max(now_[priority], tenant.finish[priority]);
  tenant.finish[priority] = start + cost;
  return &tenant;
}

void TenantOrder::Admitted(Priority priority, int64_t start) {
  int64_t& now = now_[Index(priority)];
  now = std::max(now, start);
}

void TenantOrder::Leave(const std::string& tenant) {
  const auto it = tenants_.find(tenant);
  if (--it->second.requests == 0) tenants_.erase(it);
}

void PriorityShares::Count(Priority rank, int64_t tokens) {
  if (rank < Priority::kBatch) earned(Priority::kBatch) += tokens;
  if (rank < Priority::kBackground) earned(Priority::kBackground) += tokens;
}

bool PriorityShares::Spend(Priority priority, int64_t tokens) {
  const int64_t price = tokens * PerToken(priority);
  if (earned(priority) < price) return false;
  earned(priority) -= price;
  return true;
}

}  // namespace trimtab
