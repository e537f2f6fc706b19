// How far a request got. No torch. Owned by Scheduler; read by ModelRunner within a step; engine thread only.
#ifndef TRIMTAB_SERVER_ENGINE_SEQUENCE_H_
#define TRIMTAB_SERVER_ENGINE_SEQUENCE_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <tuple>
#include <vector>

#include "absl/time/time.h"
#include "server/base/hash.h"
#include "server/engine/fair_order.h"
#include "server/engine/request.h"

namespace trimtab {

// One rule covers prefill, chunked prefill, prefix hits, decoding and recomputation: a sequence has `computed` of its
// `target()` positions and catches up.
struct Sequence {
  std::unique_ptr<const Request> request;
  int64_t ticket = 0;                      // order of arrival, unique
  Tenant* tenant = nullptr;                // valid until the end
  Priority rank = Priority::kInteractive;  // the request's priority, or kInteractive once promoted
  bool promoted = false;                   // first of its rank
  int64_t came = 0;                        // its tenant's prompt tokens that were computed before it came
  int64_t expected_cached = 0;             // leading positions that were in the cache when it was last looked at

  std::vector<TokenId> tokens;  // the request's tokens, then the generated ones
  int64_t computed = 0;         // leading positions whose keys and values are in `blocks`
  std::vector<int32_t> blocks;  // cache blocks of the leading positions; empty unless running
  // The plan's bank slots, parallel to its entries; -1 for entries of strength 0. Valid while running.
  std::array<int32_t, kMaxSelections> slots = {-1, -1, -1, -1};
  bool running = false;

  std::vector<Digest128> keys;  // identities of the leading full blocks, as far as they were needed
  int64_t published = 0;        // leading blocks that were offered to others

  std::vector<ScoredToken> scored;  // score requests: results so far
  int64_t cached_prompt_tokens = 0;
  absl::Time arrival, first_scheduled = absl::InfinitePast(), first_token = absl::InfinitePast(),
                      last_token = absl::InfinitePast();
  absl::Time paused_since = absl::InfiniteFuture();  // the consumer is behind since then

  // Doses by entry of the plan, over positions computed for the first time ([0, dosed) are done with).
  int64_t dosed = 0;
  std::array<double, kMaxSelections> dose_sum = {};
  std::array<int64_t, kMaxSelections> dose_rows = {};

  // Positions to compute before the next token (or the last score) is known. A score request does not need its last
  // token's keys and values.
  int64_t target() const { return static_cast<int64_t>(tokens.size()) - (request->score ? 1 : 0); }
  // The first position whose logits are still needed; always below target(), so at least one position is computed.
  int64_t first_logits() const {
    return request->score ? request->prompt_length - 1 + static_cast<int64_t>(scored.size()) : target() - 1;
  }
  int64_t remaining() const { return target() - computed; }
  int64_t output_tokens() const { return static_cast<int64_t>(tokens.size()) - request->prompt_length; }
  bool paused() const { return paused_since != absl::InfiniteFuture(); }
  bool steered() const { return !request->plan.is_identity(); }
};

// By rank, then arrival: the order in which answers go on.
struct CameBefore {
  using is_transparent = void;  // a rank alone is before all of that rank
  bool operator()(const Sequence* a, Priority rank) const { return a->rank < rank; }
  bool operator()(Priority rank, const Sequence* b) const { return rank <= b->rank; }
  bool operator()(const Sequence* a, const Sequence* b) const {
    if (a->rank != b->rank) return a->rank < b->rank;
    if (a->promoted != b->promoted) return a->promoted;
    return a->ticket < b->ticket;
  }
};

// A sequence's place in the order of prefill: rank, then its tenant's share, then length and age, then arrival.
struct PrefillTurn {
  explicit PrefillTurn(Sequence& of) : sequence(&of), rank(of.rank), ticket(of.ticket) {
    if (of.promoted) return;
    served = of.tenant->account(of.request->priority).served;
    // An answer that was preempted goes on before new ones begin.
    const bool answering = !of.request->score && of.output_tokens() > 0;
    place = PromptPlace(of.came, answering ? 0 : of.remaining() - (of.running ? 0 : of.expected_cached));
  }
  bool operator<(const PrefillTurn& other) const {
    return std::tie(rank, served, place, ticket) < std::tie(other.rank, other.served, other.place, other.ticket);
  }
  bool operator>(const PrefillTurn& other) const { return other < *this; }

  Sequence* sequence;
  Priority rank;
  int64_t served = -1, place = -1;
  int64_t ticket;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_SEQUENCE_H_
