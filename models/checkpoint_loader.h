// Loads the weights of any architecture that is described by a spec and a layout. Called by the model loader; any
// thread.
#ifndef TRIMTAB_MODELS_CHECKPOINT_LOADER_H_
#define TRIMTAB_MODELS_CHECKPOINT_LOADER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "models/causal_model.h"
#include "models/checkpoint_tensors.h"
#include "models/model_spec.h"
#include "models/weight_form.h"
#include "models/weights/tensor_source.h"

namespace trimtab {

// The tensors that ExpectedTensors lists, as one model: whatever the conventions of the layout and the format, the same
// weights give the same model. Errors: those of TensorSource; a tensor that is missing or has another shape is named.
absl::StatusOr<std::shared_ptr<const CausalModel>> LoadCheckpoint(const ModelSpec& spec, const CheckpointLayout& layout,
                                                                  const TensorSource& source, CheckpointFormat format,
                                                                  WeightForm form);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_CHECKPOINT_LOADER_H_
