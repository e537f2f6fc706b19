// Who is served next: what a request's priority, tenant and length give it, and what keeps anybody from waiting for
// ever. No torch, no clock. Owned by Scheduler, engine thread.
#ifndef TRIMTAB_SERVER_ENGINE_FAIR_ORDER_H_
#define TRIMTAB_SERVER_ENGINE_FAIR_ORDER_H_

#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>

#include "server/engine/request.h"

namespace trimtab {

// One who sends requests; exists while it has some.
struct Tenant {
  // Of one priority.
  struct Account {
    int64_t requests = 0;   // waiting or running
    int64_t served = 0;     // tokens computed for it, beside what it was lifted by when it came
    int64_t prefilled = 0;  // those of them that were prompts'
  };
  Account& account(Priority priority) { return accounts[static_cast<size_t>(priority) - 1]; }

  int64_t running = 0;  // requests, without the server's own
  std::array<Account, 3> accounts;
};

// Among tenants of one priority: virtual token counters (Sheng et al., "Fairness in Serving Large Language Models",
// OSDI 2024). Whoever was served least goes first, so tenants that compete get equal shares of the computed tokens,
// prompts' and answers', however many requests each of them has queued. A tenant that comes (back) starts level with
// the least served one: it neither catches up on the past nor waits for it.
class TenantOrder {
 public:
  // Counts a new request. The pointer is valid until its Leave.
  Tenant* Enter(const std::string& tenant, Priority priority);
  void Leave(const std::string& tenant, Priority priority);

  int64_t tenants() const { return static_cast<int64_t>(tenants_.size()); }

 private:
  std::unordered_map<std::string, Tenant> tenants_;
};

// Within a tenant and a priority: the shortest prompt first, but age counts. A prompt's place is when it came, on the
// clock of prompt tokens that were computed for the tenant, plus kPassing times the tokens it has yet to compute; the
// least place is served first. So an ordinary prompt passes a long one, even one in the middle of it; equal prompts are
// served as they came; and nobody passes a prompt of n tokens that comes kPassing * n computed tokens after it.
constexpr int64_t kPassing = 16;
inline int64_t PromptPlace(int64_t came, int64_t tokens) { return came + kPassing * tokens; }

// Between priorities: a higher one goes first, but never takes everything. While a batch or background request wants to
// be computed, its class earns one token for every 8 or 32 tokens that are computed for higher ranks. When it has
// earned what its first request needs, that request is promoted: served with the first, and preempted no sooner.
class PriorityShares {
 public:
  // Tokens computed for requests of `rank` in a step.
  void Count(Priority rank, int64_t tokens);
  // Nobody of this class wants anything: what was earned is forgotten.
  void Forget(Priority priority) { earned(priority) = 0; }
  // Whether a request that needs `tokens` may be promoted; then they are spent.
  bool Spend(Priority priority, int64_t tokens);

 private:
  static int64_t PerToken(Priority priority) { return priority == Priority::kBatch ? 8 : 32; }
  int64_t& earned(Priority priority) { return earned_[static_cast<int>(priority) - 1]; }

  std::array<int64_t, 3> earned_ = {};  // times PerToken
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_FAIR_ORDER_H_
