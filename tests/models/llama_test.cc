#include "models/llama.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "models/attention/dense_attention.h"
#include "models/layers/rope.h"
#include "models/model_registry.h"
#include "models/weights/safetensors.h"
#include "tests/models/weights/file_builder.h"

namespace trimtab {
namespace {

const std::string kData = "tests/golden/data/llama/";

nlohmann::json Config(const std::string& name) {
  return nlohmann::json::parse(ReadWholeFile(kData + name + "/config.json"));
}

std::shared_ptr<const TensorSource> Checkpoint(const std::string& path) {
  absl::StatusOr<std::shared_ptr<const SafetensorsCheckpoint>> checkpoint = SafetensorsCheckpoint::Open(path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return MakeTensorSource(*checkpoint);
}

std::shared_ptr<const CausalModel> LoadTiny(const std::string& name) {
  const absl::StatusOr<ModelSpec> spec = LlamaSpecFromConfig(Config(name), "config.json");
  EXPECT_TRUE(spec.ok()) << spec.status();
  auto model = LoadLlama(*spec, *Checkpoint(kData + name), CheckpointFormat::kHuggingFace, {});
  EXPECT_TRUE(model.ok()) << model.status();
  return *model;
}

// Keeps the block outputs.
class CaptureTap final : public LayerTap {
 public:
  at::Tensor At(Site, int64_t, at::Tensor hidden) override { return states.emplace_back(hidden); }
  bool Wants(Site site, int64_t) const override { return site == Site::kBlockOutput; }
  std::vector<at::Tensor> states;
};

class TinyGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(TinyGoldenTest, HiddenStatesAndLogitsMatchTransformers) {
  const at::NoGradGuard no_grad;
  const std::shared_ptr<const CausalModel> model = LoadTiny(GetParam());
  const auto golden = Checkpoint(kData + GetParam() + "/golden.safetensors");
  const at::Tensor tokens = golden->Load("tokens", {48}, at::kFloat)->to(at::kLong);
  SequenceSpan span;
  span.length = 48;
  const TokenLayout layout = TokenLayout::Dense({span});
  DenseAttention attention;
  CaptureTap tap;
  const at::Tensor hidden = model->Forward(model->Embed(tokens), {layout, attention, tap});
  ASSERT_EQ(tap.states.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const at::Tensor expected = *golden->Load(absl::StrCat("block_output.", i), {48, 32}, at::kFloat);
    EXPECT_LT((tap.states[i] - expected).abs().max().item<float>(), 2e-4f) << i;
  }
  const at::Tensor expected = *golden->Load("logits", {48, 260}, at::kFloat);
  EXPECT_LT((model->Logits(hidden) - expected).abs().max().item<float>(), 2e-4f);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, TinyGoldenTest, testing::Values("tiny", "tiny_biased"),
                         [](const auto& info) { return info.param; });

// A GGUF file of a Hugging Face Llama checkpoint, as llama.cpp's converter writes it.
std::string ConvertToGguf(const std::string& name) {
  const nlohmann::json config = Config(name);
  const auto source = Checkpoint(kData + name);
  const ModelSpec spec = *LlamaSpecFromConfig(config, "");
  GgufBuilder builder;
  const auto integer = [&](const char* key, uint32_t value) {
    builder.metadata.push_back(GgufBuilder::Entry(key, 4, GgufBuilder::Bytes(value)));
  };
  const auto number = [&](const char* key, float value) {
    builder.metadata.push_back(GgufBuilder::Entry(key, 6, GgufBuilder::Bytes(value)));
  };
  builder.metadata.push_back(GgufBuilder::Entry("general.architecture", 8, GgufBuilder::StringValue("llama")));
  integer("llama.embedding_length", spec.hidden_size);
  integer("llama.feed_forward_length", spec.intermediate_size);
  integer("llama.attention.head_count", spec.num_heads);
  integer("llama.attention.head_count_kv", spec.num_kv_heads);
  integer("llama.attention.key_length", spec.head_dim);
  integer("llama.context_length", spec.context_length);
  integer("llama.block_count", spec.num_layers());
  number("llama.attention.layer_norm_rms_epsilon", spec.norm_eps);
  number("llama.rope.freq_base", spec.layers[0].rope.base);
  const auto add = [&](const std::string& tensor_name, const at::Tensor& tensor) {
    GgufTensorEntry entry{.name = tensor_name, .dimensions = {}, .type = 0, .offset = builder.data.size()};
    for (int64_t i = tensor.dim() - 1; i >= 0; --i) entry.dimensions.push_back(tensor.size(i));
    builder.tensors.push_back(entry);
    const at::Tensor dense = tensor.contiguous();
    builder.data.append(static_cast<const char*>(dense.const_data_ptr()), dense.nbytes());
    builder.data.resize((builder.data.size() + 31) / 32 * 32);
  };
  const auto load = [&](const std::string& tensor_name) {
    const TensorInfo* info = source->Find(tensor_name);
    EXPECT_NE(info, nullptr) << tensor_name;
    return *source->Load(tensor_name, info->shape, at::kFloat);
  };
  const auto permute = [](const at::Tensor& weight, int64_t heads) {  // half-split to interleaved pairs
    return weight.view({heads, 2, -1, weight.size(1)}).transpose(1, 2).reshape(weight.sizes());
  };
  add("token_embd.weight", load("model.embed_tokens.weight"));
  add("output_norm.weight", load("model.norm.weight"));
  add("output.weight", load("lm_head.weight"));
  RopeSpec plain = spec.layers[0].rope;
  plain.scaling = RopeSpec::Scaling::kNone;
  const std::vector<double> base = RopeFrequencies(plain, spec.head_dim),
                            scaled = RopeFrequencies(spec.layers[0].rope, spec.head_dim);
  std::vector<float> factors;
  for (size_t i = 0; i < base.size(); ++i) factors.push_back(static_cast<float>(base[i] / scaled[i]));
  add("rope_freqs.weight", at::tensor(factors));
  for (int64_t i = 0; i < spec.num_layers(); ++i) {
    const std::string from = absl::StrCat("model.layers.", i, "."), to = absl::StrCat("blk.", i, ".");
    add(to + "attn_norm.weight", load(from + "input_layernorm.weight"));
    add(to + "ffn_norm.weight", load(from + "post_attention_layernorm.weight"));
    add(to + "attn_q.weight", permute(load(from + "self_attn.q_proj.weight"), spec.num_heads));
    add(to + "attn_k.weight", permute(load(from + "self_attn.k_proj.weight"), spec.num_kv_heads));
    add(to + "attn_v.weight", load(from + "self_attn.v_proj.weight"));
    add(to + "attn_output.weight", load(from + "self_attn.o_proj.weight"));
    add(to + "ffn_gate.weight", load(from + "mlp.gate_proj.weight"));
    add(to + "ffn_up.weight", load(from + "mlp.up_proj.weight"));
    add(to + "ffn_down.weight", load(from + "mlp.down_proj.weight"));
  }
  return builder.Build();
}

TEST(LlamaTest, GgufAndHuggingFaceFilesOfTheSameWeightsAreTheSameModel) {
  const at::NoGradGuard no_grad;
  const ExactBytes bytes(ConvertToGguf("tiny"));
  const absl::StatusOr<std::shared_ptr<const GgufFile>> file = GgufFile::Parse(bytes.span(), bytes.data, "tiny.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::StatusOr<ModelSpec> spec = LlamaSpecFromGguf(**file);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_FALSE(spec->tied_embeddings);
  const auto gguf = LoadLlama(*spec, *MakeTensorSource(*file), CheckpointFormat::kGguf, {});
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  const std::shared_ptr<const CausalModel> folder = LoadTiny("tiny");
  SequenceSpan span;
  span.length = 60;
  const TokenLayout layout = TokenLayout::Dense({span});
  const at::Tensor tokens = at::arange(60);
  const auto logits = [&](const CausalModel& model) {
    DenseAttention attention;
    IdentityTap tap;
    return model.Logits(model.Forward(model.Embed(tokens), {layout, attention, tap}));
  };
  EXPECT_LT((logits(**gguf) - logits(*folder)).abs().max().item<float>(), 1e-4f);
}

TEST(LlamaTest, ReadsTheSpec) {
  const ModelSpec spec = *LlamaSpecFromConfig(Config("tiny"), "config.json");
  EXPECT_EQ(spec.vocab_size, 260);
  EXPECT_EQ(spec.head_dim, 16);
  EXPECT_EQ(spec.num_kv_heads, 2);
  EXPECT_FALSE(spec.tied_embeddings);
  EXPECT_EQ(spec.layers[2].rope.scaling, RopeSpec::Scaling::kLlama3);
  EXPECT_EQ(spec.layers[2].rope.original_context, 32);
  EXPECT_FALSE(spec.layers[0].qkv_bias);
  const ModelSpec biased = *LlamaSpecFromConfig(Config("tiny_biased"), "config.json");
  EXPECT_EQ(biased.head_dim, 8);
  EXPECT_TRUE(biased.layers[0].qkv_bias && biased.layers[0].output_bias && biased.layers[0].mlp_bias);
  EXPECT_TRUE(biased.tied_embeddings);
}

// One change of the config and what the error must name.
struct BadConfig {
  const char* key;
  nlohmann::json value;
};

TEST(LlamaTest, UntrustedConfigsAreClearErrors) {
  const std::vector<BadConfig> cases = {
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
      {"num_attention_heads", 3},  // 2 key heads do not divide it
      {"num_key_value_heads", 0},
      {"head_dim", 15},
      {"head_dim", 1 << 20},
      {"max_position_embeddings", int64_t{1} << 50},
      {"rms_norm_eps", -1.0},
      {"rms_norm_eps", "small"},
      {"rope_theta", 0.0},
      {"tie_word_embeddings", "yes"},
      {"hidden_act", "relu"},
      {"rope_scaling", {{"rope_type", "llama3"}, {"factor", 4.0}}},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}},
      {"rope_scaling", {{"rope_type", "linear"}, {"factor", "x"}}},
  };
  for (const BadConfig& bad : cases) {
    nlohmann::json config = Config("tiny");
    config[bad.key] = bad.value;
    const absl::StatusOr<ModelSpec> spec = LlamaSpecFromConfig(config, "config.json");
    EXPECT_FALSE(spec.ok()) << bad.key << " = " << bad.value;
    EXPECT_TRUE(spec.status().code() == absl::StatusCode::kInvalidArgument ||
                spec.status().code() == absl::StatusCode::kUnimplemented)
        << spec.status();
    EXPECT_TRUE(absl::StrContains(spec.status().message(), "config.json")) << spec.status();
  }
}

TEST(LlamaTest, WeightsOfAnotherShapeAreNamed) {
  for (const auto& [key, value, tensor] :
       std::vector<std::tuple<const char*, int64_t, const char*>>{{"hidden_size", 64, "embed_tokens"},
                                                                  {"intermediate_size", 96, "gate_proj"},
                                                                  {"num_hidden_layers", 4, "layers.3"},
                                                                  {"num_key_value_heads", 4, "k_proj"},
                                                                  {"head_dim", 1 << 14, "q_proj"}}) {
    nlohmann::json config = Config("tiny");
    config[key] = value;
    const absl::StatusOr<ModelSpec> spec = LlamaSpecFromConfig(config, "config.json");
    ASSERT_TRUE(spec.ok()) << spec.status();
    const auto model = LoadLlama(*spec, *Checkpoint(kData + "tiny"), CheckpointFormat::kHuggingFace, {});
    ASSERT_FALSE(model.ok()) << key;
    EXPECT_TRUE(absl::StrContains(model.status().message(), tensor)) << model.status();
  }
}

TEST(ModelRegistryTest, FindsByEitherNameAndNamesWhatItKnows) {
  EXPECT_TRUE(FindArchitecture(CheckpointFormat::kHuggingFace, "LlamaForCausalLM").ok());
  EXPECT_TRUE(FindArchitecture(CheckpointFormat::kGguf, "llama").ok());
  const absl::Status status = FindArchitecture(CheckpointFormat::kGguf, "mamba").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_TRUE(absl::StrContains(status.message(), "mamba") && absl::StrContains(status.message(), "llama"));
}

}  // namespace
}  // namespace trimtab
