// The order of service: what a request's priority and tenant give it, and what keeps anybody from waiting for ever. No
// torch, no clock. Owned by Scheduler, engine thread.
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
  int64_t requests = 0;                // waiting or running
  int64_t running = 0;                 // without the server's own
  std::array<int64_t, 3> finish = {};  // by priority: the virtual time when all it asked for so far is done
};

// Among tenants of one priority: start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996). A request starts at its
// tenant's virtual finish time, or now if that is past; it costs its prompt and the answer it may give. Served by start
// time, tenants that compete get equal shares of tokens, however many requests each of them has queued, and one
// tenant's requests are served as they came.
class TenantOrder {
 public:
  // Counts a new request of `cost` tokens (>= 1). `start` gets its virtual start time. The pointer is valid until its
  // Leave.
  Tenant* Enter(const Request& request, int64_t cost, int64_t& start);
  // A request with this start time was admitted: virtual time goes on.
  void Admitted(Priority priority, int64_t start);
  void Leave(const std::string& tenant);

  int64_t tenants() const { return static_cast<int64_t>(tenants_.size()); }

 private:
  std::array<int64_t, 3> now_ = {};  // virtual time by priority
  std::unordered_map<std::string, Tenant> tenants_;
};

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
