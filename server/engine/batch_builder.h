// From a step's plan to the tensors of one forward pass. Engine thread.
#ifndef TRIMTAB_SERVER_ENGINE_BATCH_BUILDER_H_
#define TRIMTAB_SERVER_ENGINE_BATCH_BUILDER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/token_layout.h"
#include "server/engine/step.h"
#include "steering/runtime/steering_tap.h"

namespace trimtab {

// The rows of all items, one item after the other.
struct StepBatch {
  at::Tensor token_ids;  // [num_tokens] int64, CPU
  TokenLayout layout;    // paged; one span per item
  SteeringRows steering;
  std::vector<int64_t> logits_rows;  // rows whose logits are needed, ascending, item by item

  // Rows that some entry steers.
  int64_t steered_rows = 0;
};

// Keeps the memory of its batches: one of the shape of the batch before allocates nothing.
class BatchBuilder {
 public:
  explicit BatchBuilder(int64_t block_size) : block_size_(block_size) {}

  // `plan` must not be empty. Steering goes by absolute position, never by phase, so chunks and recomputation agree.
  // Valid until the next call.
  const StepBatch& Build(const StepPlan& plan);

 private:
  const int64_t block_size_;
  StepBatch batch_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_BATCH_BUILDER_H_
