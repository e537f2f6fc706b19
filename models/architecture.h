// A model architecture as data: how its configurations become a ModelSpec, and how its checkpoints name their tensors.
// One file per architecture defines one (or two that differ in a name); model_registry.cc lists them. Const; any
// thread.
#ifndef TRIMTAB_MODELS_ARCHITECTURE_H_
#define TRIMTAB_MODELS_ARCHITECTURE_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "models/checkpoint_tensors.h"
#include "models/model_spec.h"
#include "models/weights/gguf.h"

namespace trimtab {

struct Architecture {
  std::string_view hugging_face;  // in config.json's "architectures", for example "LlamaForCausalLM"
  std::string_view gguf;          // general.architecture, for example "llama"; empty: GGUF files bear another's name
  CheckpointLayout layout;
  // From a Hugging Face config.json. Every number is checked; INVALID_ARGUMENT (MODEL_FILE_INVALID) names the key,
  // UNIMPLEMENTED what is not supported.
  absl::StatusOr<ModelSpec> (*spec_from_config)(const nlohmann::json& config, const std::string& path);
  // From GGUF metadata; null without `gguf`. Errors alike.
  absl::StatusOr<ModelSpec> (*spec_from_gguf)(const GgufFile& file);
};

extern const Architecture kLlama;             // Llama 2 and 3, SmolLM2 and others of the same shape
extern const Architecture kMistral;           // as Llama, with a window
extern const Architecture kQwen2;             // Qwen2 and Qwen2.5
extern const Architecture kGemma3;            // Gemma 3, text only
extern const Architecture kGemma3Multimodal;  // the text part of Gemma 3 with images

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_ARCHITECTURE_H_
