// Qwen2 and Qwen2.5: a Llama with biases on queries, keys and values, and in some configs a window in the upper layers.
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "models/architecture.h"
#include "models/config_reader.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

absl::StatusOr<ModelSpec> FromConfig(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  int64_t layers = 0;
  ModelSpec spec = reader.ReadSizes("qwen2", layers);
  LayerSpec layer{.qkv_bias = true};
  layer.activation = reader.ReadActivation("hidden_act", "silu");
  layer.rope = reader.ReadRope();
  spec.layers.assign(static_cast<size_t>(layers), layer);
  if (reader.Flag("use_sliding_window", false)) {
    const int64_t window = reader.Integer("sliding_window", 1, int64_t{1} << 24, 4096);
    const int64_t first = reader.Integer("max_window_layers", 0, int64_t{1} << 24, 28);
    std::vector<bool> upper;
    for (int64_t i = 0; i < layers; ++i) upper.push_back(i >= first);
    const std::vector<bool> sliding = reader.ReadSlidingLayers(layers, upper);
    for (size_t i = 0; i < sliding.size(); ++i) spec.layers[i].window = sliding[i] ? window : 0;
  }
  return Finish(reader, std::move(spec));
}

absl::StatusOr<ModelSpec> FromGguf(const GgufFile& file) {
  TRIMTAB_ASSIGN_OR_RETURN(const nlohmann::json config, ConfigFromGguf(file, "qwen2"));
  return FromConfig(config, file.path());
}

}  // namespace

const Architecture kQwen2 = {
    .hugging_face = "Qwen2ForCausalLM",
    .gguf = "qwen2",
    .layout = {.names = LlamaTensorNames()},
    .spec_from_config = FromConfig,
    .spec_from_gguf = FromGguf,
};

}  // namespace trimtab
