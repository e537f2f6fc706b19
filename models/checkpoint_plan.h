// What serving a model would read and keep, without reading a weight: its tensors by name against those of a
// checkpoint, and the memory of its weights and of its keys and values. Any thread.
#ifndef TRIMTAB_MODELS_CHECKPOINT_PLAN_H_
#define TRIMTAB_MODELS_CHECKPOINT_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/checkpoint_tensors.h"
#include "models/model_description.h"
#include "models/model_spec.h"

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

// How matrices are kept. Norms and biases are float32 in each.
enum class KeptAs { kFloat32, kBFloat16, kFile };

// `path`: a config.json, a Hugging Face folder (with or without weights) or a GGUF file. Errors as of LoadModel.
absl::StatusOr<CheckpointPlan> PlanCheckpoint(const std::string& path);

// Bytes of the weights as they are kept, but for the padding of matrices whose rows are not a multiple of 64.
int64_t WeightBytes(const CheckpointPlan& plan, KeptAs kept);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_CHECKPOINT_PLAN_H_
