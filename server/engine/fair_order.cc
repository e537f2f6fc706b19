#include "server/engine/fair_order.h"

#include <algorithm>
#include <optional>

namespace trimtab {

Tenant* TenantOrder::Enter(const std::string& name, Priority priority) {
  Tenant& tenant = tenants_[name];
  Tenant::Account& account = tenant.account(priority);
  if (account.requests == 0) {
    std::optional<int64_t> least;
    for (auto& [other, competitor] : tenants_) {
      const Tenant::Account& its = competitor.account(priority);
      if (its.requests > 0) least = std::min(least.value_or(its.served), its.served);
    }
    if (least) account.served = std::max(account.served, *least);
  }
  ++account.requests;
  return &tenant;
}

void TenantOrder::Leave(const std::string& name, Priority priority) {
  const auto it = tenants_.find(name);
  --it->second.account(priority).requests;
  const auto has_requests = [](const Tenant::Account& account) { return account.requests > 0; };
  const std::array<Tenant::Account, 3>& accounts = it->second.accounts;
  if (std::none_of(accounts.begin(), accounts.end(), has_requests)) tenants_.erase(it);
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
