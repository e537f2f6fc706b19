// Gemma 3, text: norms also behind attention and MLP and over each head of queries and keys, a gated GELU, scaled
// embeddings, and five layers with a window and rotary embedding of their own to one that sees everything.
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "models/architecture.h"
#include "models/config_reader.h"
#include "models/weights/file_error.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

constexpr TensorName kNames[] = {
    {TensorRole::kEmbedding, "embed_tokens", "token_embd"},
    {TensorRole::kFinalNorm, "norm", "output_norm"},
    {TensorRole::kHead, "lm_head", "output"},
    {TensorRole::kAttentionNorm, "input_layernorm", "attn_norm"},
    {TensorRole::kQuery, "self_attn.q_proj", "attn_q"},
    {TensorRole::kKey, "self_attn.k_proj", "attn_k"},
    {TensorRole::kValue, "self_attn.v_proj", "attn_v"},
    {TensorRole::kQueryNorm, "self_attn.q_norm", "attn_q_norm"},
    {TensorRole::kKeyNorm, "self_attn.k_norm", "attn_k_norm"},
    {TensorRole::kAttentionOutput, "self_attn.o_proj", "attn_output"},
    {TensorRole::kPostAttentionNorm, "post_attention_layernorm", "post_attention_norm"},
    {TensorRole::kMlpNorm, "pre_feedforward_layernorm", "ffn_norm"},
    {TensorRole::kGate, "mlp.gate_proj", "ffn_gate"},
    {TensorRole::kUp, "mlp.up_proj", "ffn_up"},
    {TensorRole::kDown, "mlp.down_proj", "ffn_down"},
    {TensorRole::kPostMlpNorm, "post_feedforward_layernorm", "post_ffw_norm"},
};

// Published configs leave out what equals transformers' defaults (Gemma3TextConfig).
nlohmann::json WithDefaults(const nlohmann::json& config) {
  nlohmann::json full = {{"vocab_size", 262208},
                         {"hidden_size", 2304},
                         {"intermediate_size", 9216},
                         {"num_hidden_layers", 26},
                         {"num_attention_heads", 8},
                         {"num_key_value_heads", 4},
                         {"head_dim", 256},
                         {"max_position_embeddings", 131072},
                         {"rms_norm_eps", 1e-6},
                         {"tie_word_embeddings", true},
                         {"rope_theta", 1e6},
                         {"rope_local_base_freq", 1e4},
                         {"sliding_window", 4096},
                         {"sliding_window_pattern", 6},
                         {"query_pre_attn_scalar", 256},
                         {"hidden_activation", "gelu_pytorch_tanh"}};
  for (const auto& [key, value] : config.items()) {
    if (!value.is_null()) full[key] = value;
  }
  if (config.contains("_sliding_window_pattern")) full["sliding_window_pattern"] = config["_sliding_window_pattern"];
  return full;
}

// Rotary embeddings of layers without and with a window. transformers 5 keeps both in rope_parameters.
std::pair<RopeSpec, RopeSpec> ReadRopes(const nlohmann::json& config, ConfigReader& reader) {
  const nlohmann::json parameters = config.value("rope_parameters", nlohmann::json());
  const auto read = [&](const nlohmann::json& object) {
    ConfigReader own(object, reader.path());
    const RopeSpec rope = own.ReadRope();
    reader.Adopt(own.status());
    return rope;
  };
  if (parameters.is_object() && parameters.contains("full_attention") && parameters.contains("sliding_attention")) {
    return {read({{"rope_parameters", parameters["full_attention"]}}),
            read({{"rope_parameters", parameters["sliding_attention"]}})};
  }
  return {reader.ReadRope(), read({{"rope_theta", config["rope_local_base_freq"]}})};
}

// `config`: with all keys of WithDefaults.
absl::StatusOr<ModelSpec> Read(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  int64_t layers = 0;
  ModelSpec spec = reader.ReadSizes("gemma3", layers);
  // As transformers in float32 and llama.cpp; transformers rounds it with the weights' type.
  spec.embedding_scale = std::sqrt(static_cast<float>(spec.hidden_size));
  spec.attention_scale = 1 / std::sqrt(reader.Number("query_pre_attn_scalar", 1e-6, 1e6));
  const bool attention_bias = reader.Flag("attention_bias", false);
  LayerSpec layer{.qkv_bias = attention_bias, .output_bias = attention_bias, .qk_norm = true, .sandwich_norms = true};
  layer.activation = reader.ReadActivation("hidden_activation", "gelu_pytorch_tanh");
  const int64_t window = reader.Integer("sliding_window", 1, int64_t{1} << 24);
  const int64_t pattern = reader.Integer("sliding_window_pattern", 1, int64_t{1} << 24);
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    if (reader.Has(key)) reader.Refuse(QuoteName(key));
  }
  if (reader.Flag("use_bidirectional_attention", false)) reader.Refuse("attention to later tokens");
  const auto [global, local] = ReadRopes(config, reader);
  std::vector<bool> sliding;
  for (int64_t i = 0; i < layers; ++i) sliding.push_back((i + 1) % pattern != 0);
  for (const bool slides : reader.ReadSlidingLayers(layers, sliding)) {
    layer.window = slides ? window : 0;
    layer.rope = slides ? local : global;
    spec.layers.push_back(layer);
  }
  return Finish(reader, std::move(spec));
}

absl::StatusOr<ModelSpec> FromConfig(const nlohmann::json& config, const std::string& path) {
  return Read(WithDefaults(config), path);
}

// The language model of a config with images.
absl::StatusOr<ModelSpec> FromMultimodalConfig(const nlohmann::json& config, const std::string& path) {
  if (!config.contains("text_config") || !config["text_config"].is_object()) {
    return ModelFileError(path, "\"text_config\" is missing");
  }
  nlohmann::json text = config["text_config"];
  if (config.contains("tie_word_embeddings")) text["tie_word_embeddings"] = config["tie_word_embeddings"];
  return FromConfig(text, path);
}

// The pattern, the local rotary base and the scale of the scores are not in most files: what llama.cpp assumes.
absl::StatusOr<ModelSpec> FromGguf(const GgufFile& file) {
  TRIMTAB_ASSIGN_OR_RETURN(nlohmann::json config, ConfigFromGguf(file, "gemma3"));
  TRIMTAB_ASSIGN_OR_RETURN(config["sliding_window_pattern"],
                           file.GetIntOr("gemma3.attention.sliding_window_pattern", 6));
  TRIMTAB_ASSIGN_OR_RETURN(config["rope_local_base_freq"], file.GetFloatOr("gemma3.rope.freq_base_swa", 1e4));
  constexpr int64_t kLayersOf27B = 62;
  const nlohmann::json &head_dim = config["head_dim"], &heads = config["num_attention_heads"],
                       &hidden = config["hidden_size"];
  if (head_dim.is_number()) config["query_pre_attn_scalar"] = head_dim;
  if (config["num_hidden_layers"] == kLayersOf27B && heads.is_number() && heads > 0 && hidden.is_number()) {
    config["query_pre_attn_scalar"] = hidden.get<double>() / heads.get<double>();
  }
  return Read(config, file.path());
}

constexpr CheckpointLayout kLayout = {.names = kNames, .norms_less_one = true};

}  // namespace

const Architecture kGemma3 = {
    .hugging_face = "Gemma3ForCausalLM",
    .gguf = "gemma3",
    .layout = kLayout,
    .spec_from_config = FromConfig,
    .spec_from_gguf = FromGguf,
};

const Architecture kGemma3Multimodal = {
    .hugging_face = "Gemma3ForConditionalGeneration",
    .gguf = "",
    .layout = {.names = kNames, .hugging_face_prefix = "language_model.model.", .norms_less_one = true},
    .spec_from_config = FromMultimodalConfig,
    .spec_from_gguf = nullptr,
};

}  // namespace trimtab
