// Configurations of every architecture, as published and as nobody should publish them.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "models/architecture.h"
#include "models/checkpoint_tensors.h"
#include "models/model_registry.h"

namespace trimtab {
namespace {

const nlohmann::json kLlama31_8B = {{"hidden_size", 4096},
                                    {"intermediate_size", 14336},
                                    {"max_position_embeddings", 131072},
                                    {"num_attention_heads", 32},
                                    {"num_hidden_layers", 32},
                                    {"num_key_value_heads", 8},
                                    {"rms_norm_eps", 1e-5},
                                    {"rope_theta", 500000.0},
                                    {"rope_scaling",
                                     {{"factor", 8.0},
                                      {"low_freq_factor", 1.0},
                                      {"high_freq_factor", 4.0},
                                      {"original_max_position_embeddings", 8192},
                                      {"rope_type", "llama3"}}},
                                    {"tie_word_embeddings", false},
                                    {"hidden_act", "silu"},
                                    {"vocab_size", 128256}};
const nlohmann::json kQwen25_7B = {
    {"hidden_size", 3584},      {"intermediate_size", 18944},   {"max_position_embeddings", 32768},
    {"max_window_layers", 28},  {"num_attention_heads", 28},    {"num_hidden_layers", 28},
    {"num_key_value_heads", 4}, {"rms_norm_eps", 1e-6},         {"rope_theta", 1000000.0},
    {"sliding_window", 131072}, {"tie_word_embeddings", false}, {"use_sliding_window", false},
    {"hidden_act", "silu"},     {"vocab_size", 152064}};
const nlohmann::json kGemma3_12B = {{"text_config",
                                     {{"hidden_size", 3840},
                                      {"intermediate_size", 15360},
                                      {"model_type", "gemma3_text"},
                                      {"num_attention_heads", 16},
                                      {"num_hidden_layers", 48},
                                      {"num_key_value_heads", 8},
                                      {"rope_scaling", {{"factor", 8.0}, {"rope_type", "linear"}}},
                                      {"sliding_window", 1024}}}};
const nlohmann::json kGemma3_270M = {{"vocab_size", 262144},
                                     {"hidden_size", 640},
                                     {"intermediate_size", 2048},
                                     {"num_hidden_layers", 18},
                                     {"num_attention_heads", 4},
                                     {"num_key_value_heads", 1},
                                     {"head_dim", 256},
                                     {"max_position_embeddings", 32768},
                                     {"rms_norm_eps", 1e-6},
                                     {"rope_theta", 1e6},
                                     {"rope_local_base_freq", 1e4},
                                     {"sliding_window", 512},
                                     {"query_pre_attn_scalar", 256}};
const nlohmann::json kMistral7B = {
    {"hidden_size", 4096},          {"intermediate_size", 14336}, {"max_position_embeddings", 32768},
    {"num_attention_heads", 32},    {"num_hidden_layers", 32},    {"num_key_value_heads", 8},
    {"rms_norm_eps", 1e-5},         {"rope_theta", 10000.0},      {"sliding_window", 4096},
    {"tie_word_embeddings", false}, {"vocab_size", 32000}};

ModelSpec SpecOf(const Architecture& architecture, const nlohmann::json& config) {
  const absl::StatusOr<ModelSpec> spec = architecture.spec_from_config(config, "config.json");
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *spec;
}

int64_t Parameters(const Architecture& architecture, const nlohmann::json& config, CheckpointFormat format) {
  int64_t sum = 0;
  std::set<std::string> names;
  for (const ExpectedTensor& tensor : ExpectedTensors(SpecOf(architecture, config), architecture.layout, format)) {
    int64_t elements = 1;
    for (const int64_t dimension : tensor.shape) elements *= dimension;
    if (!tensor.optional) sum += elements;
    EXPECT_TRUE(names.insert(tensor.name).second) << tensor.name;
  }
  return sum;
}

TEST(ExpectedTensorsTest, PublishedModelsHaveAsManyParametersAsTheirAuthorsSay) {
  for (const CheckpointFormat format : {CheckpointFormat::kHuggingFace, CheckpointFormat::kGguf}) {
    EXPECT_EQ(Parameters(kLlama, kLlama31_8B, format), 8030261248);
    EXPECT_EQ(Parameters(kQwen2, kQwen25_7B, format), 7615616512);
    EXPECT_EQ(Parameters(kGemma3, kGemma3_270M, format), 268098176);
    EXPECT_EQ(Parameters(kMistral, kMistral7B, format), 7241732096);
  }
}

TEST(ExpectedTensorsTest, NamesAreTheFormats) {
  const auto has = [](const Architecture& architecture, const nlohmann::json& config, CheckpointFormat format,
                      const std::string& name, const std::vector<int64_t>& shape) {
    for (const ExpectedTensor& tensor : ExpectedTensors(SpecOf(architecture, config), architecture.layout, format)) {
      if (tensor.name == name) return tensor.shape == shape;
    }
    return false;
  };
  EXPECT_TRUE(has(kQwen2, kQwen25_7B, CheckpointFormat::kHuggingFace, "model.layers.27.self_attn.k_proj.bias", {512}));
  EXPECT_TRUE(has(kQwen2, kQwen25_7B, CheckpointFormat::kGguf, "blk.27.attn_k.bias", {512}));
  EXPECT_TRUE(has(kQwen2, kQwen25_7B, CheckpointFormat::kHuggingFace, "lm_head.weight", {152064, 3584}));
  EXPECT_TRUE(has(kGemma3, kGemma3_270M, CheckpointFormat::kHuggingFace,
                  "model.layers.0.pre_feedforward_layernorm.weight", {640}));
  EXPECT_TRUE(has(kGemma3, kGemma3_270M, CheckpointFormat::kGguf, "blk.0.post_ffw_norm.weight", {640}));
  EXPECT_TRUE(has(kGemma3, kGemma3_270M, CheckpointFormat::kGguf, "blk.17.attn_q_norm.weight", {256}));
  EXPECT_TRUE(has(kGemma3Multimodal, kGemma3_12B, CheckpointFormat::kHuggingFace,
                  "language_model.model.embed_tokens.weight", {262208, 3840}));
  EXPECT_FALSE(has(kGemma3, kGemma3_270M, CheckpointFormat::kHuggingFace, "lm_head.weight", {262144, 640}));
}

TEST(LlamaTest, ReadsTheSpec) {
  const ModelSpec spec = SpecOf(kLlama, kLlama31_8B);
  EXPECT_EQ(spec.head_dim, 128);
  EXPECT_EQ(spec.layers[31].rope.scaling, RopeSpec::Scaling::kLlama3);
  EXPECT_EQ(spec.layers[31].rope.original_context, 8192);
  EXPECT_EQ(spec.layers[31].window, 0);
  EXPECT_FALSE(spec.layers[0].qkv_bias || spec.layers[0].qk_norm || spec.layers[0].sandwich_norms);
  EXPECT_EQ(spec.embedding_scale, 1);
  EXPECT_DOUBLE_EQ(spec.attention(0).scale, 1 / std::sqrt(128.0));
  EXPECT_EQ(spec.kv_bytes_per_token(2), 131072);
  nlohmann::json config = kLlama31_8B;
  config["attention_bias"] = config["mlp_bias"] = true;
  const LayerSpec biased = SpecOf(kLlama, config).layers[0];
  EXPECT_TRUE(biased.qkv_bias && biased.output_bias && biased.mlp_bias);
}

TEST(MistralTest, TheWindowIsTheConfigs) {
  EXPECT_EQ(SpecOf(kMistral, kMistral7B).layers[31].window, 4096);
  nlohmann::json config = kMistral7B;
  config["sliding_window"] = nullptr;
  EXPECT_EQ(SpecOf(kMistral, config).layers[0].window, 0);
  config.erase("sliding_window");
  EXPECT_EQ(SpecOf(kMistral, config).layers[0].window, 4096);
}

TEST(Qwen2Test, BiasesAlwaysAndAWindowWhenAsked) {
  const ModelSpec spec = SpecOf(kQwen2, kQwen25_7B);
  EXPECT_TRUE(spec.layers[0].qkv_bias);
  EXPECT_FALSE(spec.layers[0].output_bias || spec.layers[0].mlp_bias);
  EXPECT_EQ(spec.layers[27].window, 0);
  nlohmann::json config = kQwen25_7B;
  config["use_sliding_window"] = true;
  config["max_window_layers"] = 20;
  EXPECT_EQ(SpecOf(kQwen2, config).layers[19].window, 0);
  EXPECT_EQ(SpecOf(kQwen2, config).layers[20].window, 131072);
}

TEST(Gemma3Test, ReadsTheSpec) {
  const ModelSpec spec = SpecOf(kGemma3, kGemma3_270M);
  EXPECT_TRUE(spec.tied_embeddings);
  EXPECT_FLOAT_EQ(spec.embedding_scale, std::sqrt(640.0f));
  for (size_t i = 0; i < 18; ++i) {
    const bool global = i % 6 == 5;
    EXPECT_EQ(spec.layers[i].window, global ? 0 : 512) << i;
    EXPECT_EQ(spec.layers[i].rope.base, global ? 1e6 : 1e4) << i;
    EXPECT_EQ(spec.layers[i].activation, Activation::kGeluTanh);
    EXPECT_TRUE(spec.layers[i].qk_norm && spec.layers[i].sandwich_norms);
  }
}

TEST(Gemma3Test, DefaultsFillASparseConfigAndOnlyGlobalLayersAreScaled) {
  const ModelSpec spec = SpecOf(kGemma3Multimodal, kGemma3_12B);
  EXPECT_EQ(spec.vocab_size, 262208);
  EXPECT_EQ(spec.head_dim, 256);
  EXPECT_EQ(spec.num_layers(), 48);
  EXPECT_EQ(spec.layers[5].rope.scaling, RopeSpec::Scaling::kLinear);
  EXPECT_EQ(spec.layers[5].rope.factor, 8);
  EXPECT_EQ(spec.layers[4].rope.scaling, RopeSpec::Scaling::kNone);
  EXPECT_EQ(spec.layers[4].window, 1024);
}

TEST(Gemma3Test, LayerTypesAndRopeParametersWinOverPatterns) {
  nlohmann::json config = kGemma3_270M;
  config["num_hidden_layers"] = 2;
  config["layer_types"] = {"full_attention", "sliding_attention"};
  config["rope_parameters"] = {{"full_attention", {{"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 5e5}}},
                               {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 2e4}}}};
  const ModelSpec spec = SpecOf(kGemma3, config);
  EXPECT_EQ(spec.layers[0].window, 0);
  EXPECT_EQ(spec.layers[0].rope.base, 5e5);
  EXPECT_EQ(spec.layers[0].rope.factor, 2);
  EXPECT_EQ(spec.layers[1].window, 512);
  EXPECT_EQ(spec.layers[1].rope.base, 2e4);
}

// One change of a config that must be refused.
struct BadConfig {
  const Architecture* architecture;
  nlohmann::json config;
  const char* key;
  nlohmann::json value;
};

TEST(ArchitectureTest, UntrustedConfigsAreClearErrors) {
  std::vector<BadConfig> cases;
  const std::vector<std::pair<const char*, nlohmann::json>> of_llama = {
      {"hidden_size", 0},
      {"hidden_size", -32},
      {"hidden_size", "32"},
      {"hidden_size", 1.5},
      {"hidden_size", nullptr},
      {"vocab_size", 18446744073709551615ull},
      {"vocab_size", int64_t{1} << 40},
      {"intermediate_size", 0},
      {"num_hidden_layers", 100000},
      {"num_attention_heads", 0},
      {"num_attention_heads", 3},  // 8 key heads do not divide it
      {"num_key_value_heads", 0},
      {"head_dim", 15},
      {"head_dim", 1 << 20},
      {"max_position_embeddings", int64_t{1} << 50},
      {"rms_norm_eps", -1.0},
      {"rms_norm_eps", "small"},
      {"rope_theta", 0.0},
      {"tie_word_embeddings", "yes"},
      {"hidden_act", "relu"},
      {"hidden_act", 1},
      {"rope_scaling", {{"rope_type", "llama3"}, {"factor", 4.0}}},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}},
      {"rope_scaling", {{"rope_type", "linear"}, {"factor", "x"}}},
  };
  for (const auto& [key, value] : of_llama) cases.push_back({&kLlama, kLlama31_8B, key, value});
  const std::vector<std::pair<const char*, nlohmann::json>> of_gemma = {
      {"sliding_window", 0},
      {"sliding_window_pattern", 0},
      {"query_pre_attn_scalar", 0},
      {"rope_local_base_freq", "low"},
      {"final_logit_softcapping", 30.0},
      {"attn_logit_softcapping", 50.0},
      {"use_bidirectional_attention", true},
      {"layer_types", {"full_attention"}},
      {"layer_types", std::vector<std::string>(18, "linear_attention")},
      {"hidden_activation", "relu"},
  };
  for (const auto& [key, value] : of_gemma) cases.push_back({&kGemma3, kGemma3_270M, key, value});
  cases.push_back({&kGemma3Multimodal, kGemma3_12B, "text_config", nullptr});
  cases.push_back({&kMistral, kMistral7B, "sliding_window", -1});
  cases.push_back({&kQwen2, kQwen25_7B, "use_sliding_window", "no"});
  for (const BadConfig& bad : cases) {
    nlohmann::json config = bad.config;
    config[bad.key] = bad.value;
    const absl::StatusOr<ModelSpec> spec = bad.architecture->spec_from_config(config, "config.json");
    EXPECT_FALSE(spec.ok()) << bad.key << " = " << bad.value;
    EXPECT_TRUE(spec.status().code() == absl::StatusCode::kInvalidArgument ||
                spec.status().code() == absl::StatusCode::kUnimplemented)
        << spec.status();
    EXPECT_TRUE(absl::StrContains(spec.status().message(), "config.json")) << spec.status();
  }
}

TEST(ModelRegistryTest, FindsByEitherNameAndNamesWhatItKnows) {
  EXPECT_EQ(*FindArchitecture(CheckpointFormat::kHuggingFace, "LlamaForCausalLM"), &kLlama);
  EXPECT_EQ(*FindArchitecture(CheckpointFormat::kGguf, "gemma3"), &kGemma3);
  for (const char* name : {"mamba", "gemma2", ""}) {
    const absl::Status status = FindArchitecture(CheckpointFormat::kGguf, name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    EXPECT_TRUE(absl::StrContains(status.message(), name) && absl::StrContains(status.message(), "llama, qwen2"))
        << status;
  }
}

}  // namespace
}  // namespace trimtab
