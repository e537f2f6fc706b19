// What a model is, read from the small files of its checkpoint without touching a weight: for the loader, and for
// planning. Any thread.
#ifndef TRIMTAB_MODELS_MODEL_DESCRIPTION_H_
#define TRIMTAB_MODELS_MODEL_DESCRIPTION_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "models/model_registry.h"
#include "models/model_spec.h"
#include "models/weights/gguf.h"

namespace trimtab {

struct ModelDescription {
  const Architecture* architecture;
  ModelSpec spec;
  std::string
      weight_type;  // what a Hugging Face config says of its weights, as safetensors names it ("BF16"); or empty
};

// From a config.json, by its path. UNIMPLEMENTED names an architecture that is not supported; INVALID_ARGUMENT
// (MODEL_FILE_INVALID) names the key.
absl::StatusOr<ModelDescription> DescribeHuggingFace(const std::string& config_path);
// From a GGUF file's metadata. Errors as above.
absl::StatusOr<ModelDescription> DescribeGguf(const GgufFile& file);

// The text of a model's file of at most 128 MiB, and that text as a JSON object. INVALID_ARGUMENT (MODEL_FILE_INVALID).
absl::StatusOr<std::string> ReadModelText(const std::string& path);
absl::StatusOr<nlohmann::json> ParseModelJson(const std::string& text, const std::string& path);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_MODEL_DESCRIPTION_H_
