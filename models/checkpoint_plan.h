// What serving a model would read and keep, without reading a weight: its tensors by name against those of a
// checkpoint, and the memory of its weights and of its keys and values. Any thread.
#ifndef TRIMTAB_MODELS_CHECKPOINT_PLAN_H_
#define TRIMTAB_MODELS_CHECKPOINT_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/checkpoint_tensors.h"
#include "models/model_description.h"
#include "models/model_spec.h"
#include "models/weight_form.h"
#include "models/weights/raw_tensor.h"

namespace trimtab {

struct PlannedTensor {
  ExpectedTensor expected;
  std::string type;   // as the checkpoint holds it, or as its configuration says; empty: absent, or not known
  int kept_bits = 0;  // 4 or 8: what precision "file" keeps of each element, and scales; 0: it is de-quantised

  bool matrix() const { return expected.shape.size() == 2; }
  int64_t elements() const;
};

struct CheckpointPlan {
  ModelDescription description;
  CheckpointFormat format;
  bool has_weights = false;            // else only the configuration was there
  std::vector<PlannedTensor> tensors;  // all that the model reads, in its order
  // Against the checkpoint's weights, in plain words, sorted by place or name.
  std::vector<std::string> missing;     // names, but of optional ones
  std::vector<std::string> mismatched;  // another shape, or a type that cannot be loaded
  std::vector<std::string> unread;      // names of tensors that the model has no use for

  int64_t parameters() const;
  bool quantised() const;  // whether precision "file" keeps some matrix in 4 or 8 bits
};

// `path`: a config.json, a Hugging Face folder (with or without weights) or a GGUF file. Errors as of LoadModel.
absl::StatusOr<CheckpointPlan> PlanCheckpoint(const std::string& path);
// The same of a checkpoint that is open already, by its table of tensors.
CheckpointPlan PlanTensors(ModelDescription description, CheckpointFormat format,
                           const std::vector<RawTensor>& present);

// OK when the checkpoint at `path` holds all that the model reads; else INVALID_ARGUMENT (MODEL_FILE_INVALID) that
// names what is missing or does not fit, the first few of each.
absl::Status CheckComplete(const CheckpointPlan& plan, const std::string& path);

// Bytes of the weights kept in `form`, norms and biases in float32, but for the padding of matrices whose rows are not
// a multiple of 64.
int64_t WeightBytes(const CheckpointPlan& plan, const WeightForm& form);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_CHECKPOINT_PLAN_H_
