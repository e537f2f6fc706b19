// The architectures that can be loaded, by the name that a checkpoint gives. To add one: a file like llama.cc and a
// line in model_registry.cc. Const; any thread.
#ifndef TRIMTAB_MODELS_MODEL_REGISTRY_H_
#define TRIMTAB_MODELS_MODEL_REGISTRY_H_

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/causal_model.h"
#include "models/llama.h"
#include "models/model_spec.h"

namespace trimtab {

struct Architecture {
  std::string_view hugging_face;  // in config.json's "architectures", for example "LlamaForCausalLM"
  std::string_view gguf;          // general.architecture, for example "llama"
  absl::StatusOr<ModelSpec> (*spec_from_config)(const nlohmann::json& config, const std::string& path);
  absl::StatusOr<ModelSpec> (*spec_from_gguf)(const GgufFile& file);
  absl::StatusOr<std::shared_ptr<const CausalModel>> (*load)(const ModelSpec& spec, const TensorSource& source,
                                                             CheckpointFormat format, WeightForm form);
};

// UNIMPLEMENTED names the architecture and those that are known.
absl::StatusOr<const Architecture*> FindArchitecture(CheckpointFormat format, std::string_view name);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_MODEL_REGISTRY_H_
