// The Llama architecture (Llama 2 and 3, SmolLM2 and others of the same shape): how its checkpoints are read.
#ifndef TRIMTAB_MODELS_LLAMA_H_
#define TRIMTAB_MODELS_LLAMA_H_

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/causal_model.h"
#include "models/model_spec.h"
#include "models/weights/gguf.h"
#include "models/weights/tensor_source.h"

namespace trimtab {

// From a Hugging Face config.json. Every number is checked; INVALID_ARGUMENT (MODEL_FILE_INVALID) names the key.
absl::StatusOr<ModelSpec> LlamaSpecFromConfig(const nlohmann::json& config, const std::string& path);
// From GGUF metadata (llama.*).
absl::StatusOr<ModelSpec> LlamaSpecFromGguf(const GgufFile& file);

// Names of tensors differ between the two formats, and GGUF files hold the rows of the Q and K projections permuted for
// interleaved rotary embedding; both become the same model.
enum class CheckpointFormat { kHuggingFace, kGguf };
absl::StatusOr<std::shared_ptr<const CausalModel>> LoadLlama(const ModelSpec& spec, const TensorSource& source,
                                                             CheckpointFormat format, WeightForm form);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_LLAMA_H_
