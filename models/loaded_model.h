// A model as the server holds it: weights, tokenizer, template and identity. Immutable; shared by engine and jobs.
#ifndef TRIMTAB_MODELS_LOADED_MODEL_H_
#define TRIMTAB_MODELS_LOADED_MODEL_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/causal_model.h"
#include "models/prompt_builder.h"
#include "models/tokenizer/tokenizer.h"
#include "models/weight_form.h"

namespace trimtab {

struct LoadedModel {
  std::string id;            // resource id: models/{id}
  std::string display_name;  // from the checkpoint, or the file's name
  std::string fingerprint;   // sha256 hex over weights and shapes: a vector fitted on other weights is refused
  std::string quantization;  // type of most weights in the file, for example "Q4_1"
  std::string precision;     // how they are kept: "float32", "bfloat16", or "file" (4 or 8 bits)
  std::shared_ptr<const CausalModel> model;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const PromptBuilder> prompts;
  // The token whose embedding stands for "masked" in attribution (steering.md A5): pad when it is distinct from every
  // end-of-generation token and not the unknown token, else a single space.
  TokenId mask_token = 0;
};

struct LoadOptions {
  using Precision = trimtab::Precision;
  Precision precision = Precision::kAuto;
  // Asked several times a second whether to go on (once per tensor at least); its error ends the load. Empty: go on.
  std::function<absl::Status()> go_on = {};
};

// Loads a Hugging Face folder (config.json, tokenizer.json, safetensors) or a GGUF file. Errors: NOT_FOUND without such
// a path; INVALID_ARGUMENT (MODEL_FILE_INVALID, names the tensor or key) on a bad file; UNIMPLEMENTED names an
// architecture or tokenizer that is not supported, or says that this processor cannot compute with the file's integers
// (kFile); that of `go_on`.
absl::StatusOr<std::shared_ptr<const LoadedModel>> LoadModel(const std::string& id, const std::string& path,
                                                             const LoadOptions& options);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_LOADED_MODEL_H_
