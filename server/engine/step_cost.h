// How long a step takes, learnt from the steps so far: how much prompt a step may take in beside answers that go on. No
// torch, no clock. Owned by Scheduler, engine thread.
#ifndef TRIMTAB_SERVER_ENGINE_STEP_COST_H_
#define TRIMTAB_SERVER_ENGINE_STEP_COST_H_

#include <cstdint>

#include "absl/time/time.h"

namespace trimtab {

// A straight line through two moving averages: steps that only decode, and steps that also prefill. Each token of a
// prompt adds the slope; what a step costs before it has any is the decoding steps' average.
class StepCost {
 public:
  // Prefill tokens that a step always takes, else a prompt would not get on beside slow answers.
  static constexpr int64_t kLeastPrefill = 32;

  // A step that computed so many rows took `duration`.
  void Observe(int64_t decode_rows, int64_t prefill_rows, absl::Duration duration);
  // Prefill rows that fit into a step of `limit` beside `decode_rows`; at least kLeastPrefill.
  int64_t PrefillRows(int64_t decode_rows, absl::Duration limit) const;

 private:
  // Moving averages of one kind of step.
  struct Average {
    void Add(double step_rows, double step_seconds);
    bool known = false;
    double rows = 0, seconds = 0;
  };
  Average decoding_, prefilling_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_STEP_COST_H_
