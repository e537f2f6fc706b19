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
  StepResult Execute(const StepPlan& plan);

 private:
  StepResult Run(const StepPlan& plan);
  void ReadTap(const StepPlan& plan, const StepBatch& batch, const SteeringTap& tap, StepResult& result) const;
  void Sample(const StepPlan& plan, const StepBatch& batch, const at::Tensor& hidden, StepResult& result);
  static void TakeRow(LogitsRow& row, StepItemResult& outcome, StepResult& result);

  const CausalModel& model_;
  AttentionBackend& attention_;
  const SteeringBank& bank_;
  const int64_t block_size_;
  RowSampler sampler_;
  std::vector<LogitsRow> sampled_;         // rows of logits in the making, at most kLogitsRows
  std::vector<StepItemResult*> outcomes_;  // parallel to them
  ThreadTeam team_;
  Workspace workspace_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_MODEL_RUNNER_H_
