// The only messages between Scheduler and ModelRunner. No torch. Engine thread.
#ifndef TRIMTAB_SERVER_ENGINE_STEP_H_
#define TRIMTAB_SERVER_ENGINE_STEP_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/request.h"
#include "server/engine/sequence.h"

namespace trimtab {

// Compute positions [context, context + length) of one sequence; its blocks hold them all.
struct StepItem {
  const Sequence* sequence = nullptr;  // as it is until Commit
  int64_t context = 0;                 // positions already in the cache
  int64_t length = 0;                  // at least 1
  int64_t logits_begin = 0;            // logits are needed of positions from here on

  int64_t end() const { return context + length; }
  // Rows of this item whose logits are needed; they are its last ones.
  int64_t logits_rows() const { return std::max<int64_t>(0, end() - std::max(logits_begin, context)); }
};

struct StepPlan {
  std::vector<StepItem> items;  // no sequence twice
  int64_t num_tokens() const {
    int64_t rows = 0;
    for (const StepItem& item : items) rows += item.length;
    return rows;
  }
};

struct StepItemResult {
  absl::Status status;               // not OK: the request ends with it, the others go on
  std::optional<OutputToken> token;  // when the item has a row of logits and the request samples
  std::vector<ScoredToken> scored;   // score requests: one per row of logits
};

struct StepResult {
  std::vector<StepItemResult> items;  // parallel to the plan's
  // Per row of the plan, item by item: mean over its steered layers of |u| / |h|; empty if no row is steered.
  std::vector<float> row_dose;
  absl::Duration steering_duration;  // spent in SteeringTap
  int64_t nonfinite_rows = 0;
  bool failed = false;  // the whole step failed: every item has the same status

  // As new, for `count` items; keeps its memory.
  void Reset(size_t count) {
    items.resize(count);
    for (StepItemResult& item : items) {
      item.status = absl::OkStatus();
      item.token.reset();
      item.scored.clear();
    }
    row_dose.clear();
    steering_duration = absl::ZeroDuration();
    nonfinite_rows = 0;
    failed = false;
  }
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_STEP_H_
