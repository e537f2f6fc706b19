// Runs a step on the device: StepPlan -> tensors -> forward pass -> tokens. Owned by Engine, engine thread.
#ifndef TRIMTAB_SERVER_ENGINE_MODEL_RUNNER_H_
#define TRIMTAB_SERVER_ENGINE_MODEL_RUNNER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "models/attention/attention_backend.h"
#include "models/causal_model.h"
#include "models/kernels/thread_team.h"
#include "models/layers/workspace.h"
#include "server/engine/batch_builder.h"
#include "server/engine/row_sampler.h"
#include "server/engine/step.h"
#include "steering/runtime/steering_bank.h"
#include "steering/runtime/steering_tap.h"

namespace trimtab {

// Embed -> Forward (paged attention, steering tap) -> Logits of the rows that need them -> Sampler. The model, the
// attention with its cache and the bank must outlive the runner.
class ModelRunner {
 public:
  // num_threads: of a step, the caller's included; 0: as many as ATen uses.
  ModelRunner(const CausalModel& model, AttentionBackend& attention, const SteeringBank& bank, int64_t block_size,
              int num_threads = 0);

  // Never throws: what the device throws becomes the status of every item (DEVICE_OUT_OF_MEMORY, else INTERNAL), and
  // the runner can be used again. A request whose activations or logits are not finite ends alone, with NON_FINITE.
  // The result may be emptied by the caller; it is valid until the next call. A step of the shape of the one before
  // allocates nothing beside what the model does.
  StepResult& Execute(const StepPlan& plan);

 private:
  void Run(const StepPlan& plan);
  void Fail(const absl::Status& status);
  void ReadTap(const StepPlan& plan, const StepBatch& batch);
  // hidden: [num_tokens, hidden] float32, contiguous.
  void Sample(const StepPlan& plan, const StepBatch& batch, const at::Tensor& hidden);
  // The last `count` of the first `end` rows that need logits: [count, hidden].
  at::Tensor Pick(const StepBatch& batch, const at::Tensor& hidden, int64_t end, int64_t count);
  void TakeRow(LogitsRow& row, StepItemResult& outcome);

  const CausalModel& model_;
  AttentionBackend& attention_;
  const SteeringBank& bank_;
  BatchBuilder builder_;
  SteeringTap tap_;
  StepResult result_;
  GrowingTensor picked_;
  RowSampler sampler_;
  std::vector<LogitsRow> sampled_;         // rows of logits in the making, at most kLogitsRows
  std::vector<StepItemResult*> outcomes_;  // parallel to them
  ThreadTeam team_;
  Workspace workspace_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_MODEL_RUNNER_H_
