// Mistral: a Llama whose layers look back a window of positions. Its GGUF files call themselves llama.
#include <nlohmann/json.hpp>
#include <utility>

#include "models/architecture.h"
#include "models/config_reader.h"

namespace trimtab {
namespace {

constexpr int64_t kDefaultWindow = 4096;  // of configs that do not say; null means none

absl::StatusOr<ModelSpec> FromConfig(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  int64_t layers = 0;
  ModelSpec spec = reader.ReadSizes("mistral", layers);
  LayerSpec layer;
  layer.activation = reader.ReadActivation("hidden_act", "silu");
  layer.window =
      reader.Integer("sliding_window", 1, spec.context_length, config.contains("sliding_window") ? 0 : kDefaultWindow);
  layer.rope = reader.ReadRope();
  spec.layers.assign(static_cast<size_t>(layers), layer);
  return Finish(reader, std::move(spec));
}

}  // namespace

const Architecture kMistral = {
    .hugging_face = "MistralForCausalLM",
    .gguf = "",
    .layout = {.names = LlamaTensorNames()},
    .spec_from_config = FromConfig,
    .spec_from_gguf = nullptr,
};

}  // namespace trimtab
