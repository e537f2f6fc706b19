// Llama 2 and 3, SmolLM2 and others of the same shape.
#include <nlohmann/json.hpp>
#include <utility>

#include "models/architecture.h"
#include "models/config_reader.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

absl::StatusOr<ModelSpec> FromConfig(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  int64_t layers = 0;
  ModelSpec spec = reader.ReadSizes("llama", layers);
  const bool attention_bias = reader.Flag("attention_bias", false);
  LayerSpec layer{.qkv_bias = attention_bias, .output_bias = attention_bias};
  layer.mlp_bias = reader.Flag("mlp_bias", false);
  layer.activation = reader.ReadActivation("hidden_act", "silu");
  layer.rope = reader.ReadRope();
  spec.layers.assign(static_cast<size_t>(layers), layer);
  return Finish(reader, std::move(spec));
}

absl::StatusOr<ModelSpec> FromGguf(const GgufFile& file) {
  TRIMTAB_ASSIGN_OR_RETURN(const nlohmann::json config, ConfigFromGguf(file, "llama"));
  return FromConfig(config, file.path());
}

}  // namespace

const Architecture kLlama = {
    .hugging_face = "LlamaForCausalLM",
    .gguf = "llama",
    .layout = {.names = LlamaTensorNames(), .gguf_interleaves_heads = true},
    .spec_from_config = FromConfig,
    .spec_from_gguf = FromGguf,
};

}  // namespace trimtab
