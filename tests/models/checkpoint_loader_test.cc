// Tiny checkpoints of every architecture (tests/golden/make_model_golden.py) against transformers in float32.
#include "models/checkpoint_loader.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "models/attention/dense_attention.h"
#include "models/layers/rope.h"
#include "models/model_registry.h"
#include "models/testing/paged_run.h"
#include "models/weights/safetensors.h"
#include "tests/models/weights/file_builder.h"

namespace trimtab {
namespace {

const std::string kData = "tests/golden/data/";
constexpr int64_t kLength = 48, kPrompt = 40;  // of the goldens

nlohmann::json Config(const std::string& name) {
  return nlohmann::json::parse(ReadWholeFile(kData + name + "/config.json"));
}

std::shared_ptr<const TensorSource> Checkpoint(const std::string& path) {
  absl::StatusOr<std::shared_ptr<const SafetensorsCheckpoint>> checkpoint = SafetensorsCheckpoint::Open(path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return MakeTensorSource(*checkpoint);
}

const Architecture& ArchitectureOf(const std::string& name) {
  return **FindArchitecture(CheckpointFormat::kHuggingFace, Config(name)["architectures"][0].get<std::string>());
}

ModelSpec SpecOf(const std::string& name) {
  const absl::StatusOr<ModelSpec> spec = ArchitectureOf(name).spec_from_config(Config(name), "config.json");
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *spec;
}

std::shared_ptr<const CausalModel> LoadTiny(const std::string& name) {
  auto model = LoadCheckpoint(SpecOf(name), ArchitectureOf(name).layout, *Checkpoint(kData + name),
                              CheckpointFormat::kHuggingFace, {});
  EXPECT_TRUE(model.ok()) << model.status();
  return *model;
}

TokenLayout OneSequence(int64_t length) {
  SequenceSpan span;
  span.length = length;
  return TokenLayout::Dense({span});
}

at::Tensor DenseLogits(const CausalModel& model, const at::Tensor& embeddings) {
  const TokenLayout layout = OneSequence(embeddings.size(0));
  DenseAttention attention;
  IdentityTap tap;
  return model.Logits(model.Forward(embeddings, {layout, attention, tap}));
}

float Largest(const at::Tensor& difference) { return difference.abs().max().item<float>(); }

// Keeps the block outputs.
class CaptureTap final : public LayerTap {
 public:
  at::Tensor At(Site, int64_t, at::Tensor hidden) override { return states.emplace_back(hidden); }
  bool Wants(Site site, int64_t) const override { return site == Site::kBlockOutput; }
  std::vector<at::Tensor> states;
};

class TinyGoldenTest : public testing::TestWithParam<const char*> {
 protected:
  const std::shared_ptr<const CausalModel> model_ = LoadTiny(GetParam());
  const std::shared_ptr<const TensorSource> golden_ = Checkpoint(kData + GetParam() + "/golden.safetensors");
  const int64_t hidden_ = model_->spec().hidden_size;
  const at::Tensor tokens_ = Golden("tokens", {kLength}).to(at::kLong);

  at::Tensor Golden(const std::string& name, const std::vector<int64_t>& shape) const {
    return *golden_->Load(name, shape, at::kFloat);
  }
};

TEST_P(TinyGoldenTest, HiddenStatesAndLogitsMatchTransformers) {
  const at::NoGradGuard no_grad;
  const TokenLayout layout = OneSequence(kLength);
  DenseAttention attention;
  CaptureTap tap;
  const at::Tensor hidden = model_->Forward(model_->Embed(tokens_), {layout, attention, tap});
  ASSERT_EQ(static_cast<int64_t>(tap.states.size()), model_->spec().num_layers());
  for (size_t i = 0; i < tap.states.size(); ++i) {
    const at::Tensor expected = Golden(absl::StrCat("block_output.", i), {kLength, hidden_});
    EXPECT_LT(Largest(tap.states[i] - expected), 2e-4f) << i;
  }
  EXPECT_LT(Largest(model_->Logits(hidden) - Golden("logits", {kLength, 260})), 2e-4f);
}

// Chunks and single tokens over a cache, across the windows' edges.
TEST_P(TinyGoldenTest, CachedDecodingEqualsTheFullForward) {
  const at::Tensor expected = Golden("logits", {kLength, 260});
  for (const std::vector<int64_t>& chunks :
       std::vector<std::vector<int64_t>>{{kLength}, {13, 4, 20, 1, 1, 1, 8}, std::vector<int64_t>(kLength, 1)}) {
    PagedRun run(*model_, 13, 4);
    int64_t done = 0;
    for (const int64_t chunk : chunks) {
      const int64_t* first = tokens_.const_data_ptr<int64_t>() + done;
      const at::Tensor logits = run.Logits({{0, {first, first + chunk}}});
      EXPECT_LT(Largest(logits - expected.narrow(0, done, chunk)), 2e-4f) << "from " << done;
      done += chunk;
    }
  }
}

TEST_P(TinyGoldenTest, GradientsOfTheAnswerMatchAutograd) {
  const at::Tensor x = model_->Embed(tokens_).requires_grad_(true);
  const at::Tensor log_prob = at::log_softmax(DenseLogits(*model_, x), -1).narrow(0, kPrompt - 1, kLength - kPrompt);
  const at::Tensor answer = tokens_.narrow(0, kPrompt, kLength - kPrompt).unsqueeze(1);
  const at::Tensor gradient = torch::autograd::grad({log_prob.gather(1, answer).sum()}, {x})[0];
  const at::Tensor expected = Golden("gradient", {kLength, hidden_});
  EXPECT_GT(expected.norm().item<float>(), 0.1f);
  EXPECT_LT(((gradient - expected).norm() / expected.norm()).item<float>(), 1e-4f);
}

constexpr const char* kTiny[] = {"llama/tiny",        "llama/tiny_biased", "qwen2/tiny",
                                 "qwen2/tiny_window", "mistral/tiny",      "gemma3/tiny"};
const auto kName = [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
};
INSTANTIATE_TEST_SUITE_P(Checkpoints, TinyGoldenTest, testing::ValuesIn(kTiny), kName);

bool IsNorm(TensorRole role) {
  switch (role) {
    case TensorRole::kFinalNorm:
    case TensorRole::kAttentionNorm:
    case TensorRole::kQueryNorm:
    case TensorRole::kKeyNorm:
    case TensorRole::kPostAttentionNorm:
    case TensorRole::kMlpNorm:
    case TensorRole::kPostMlpNorm:
      return true;
    default:
      return false;
  }
}

// A GGUF file of a Hugging Face checkpoint, as llama.cpp's converter writes it.
std::string ConvertToGguf(const std::string& name) {
  const Architecture& architecture = ArchitectureOf(name);
  const std::string prefix(architecture.gguf);
  const auto source = Checkpoint(kData + name);
  const ModelSpec spec = SpecOf(name);
  GgufBuilder builder;
  const auto integer = [&](const char* key, uint32_t value) {
    builder.metadata.push_back(GgufBuilder::Entry(prefix + key, 4, GgufBuilder::Bytes(value)));
  };
  const auto number = [&](const char* key, float value) {
    builder.metadata.push_back(GgufBuilder::Entry(prefix + key, 6, GgufBuilder::Bytes(value)));
  };
  builder.metadata.push_back(GgufBuilder::Entry("general.architecture", 8, GgufBuilder::StringValue(prefix)));
  integer(".embedding_length", spec.hidden_size);
  integer(".feed_forward_length", spec.intermediate_size);
  integer(".attention.head_count", spec.num_heads);
  integer(".attention.head_count_kv", spec.num_kv_heads);
  integer(".attention.key_length", spec.head_dim);
  integer(".context_length", spec.context_length);
  integer(".block_count", spec.num_layers());
  number(".attention.layer_norm_rms_epsilon", spec.norm_eps);
  const LayerSpec& last = spec.layers.back();
  const auto full = std::find_if(spec.layers.begin(), spec.layers.end(), [](auto& layer) { return layer.window == 0; });
  const RopeSpec rope = full == spec.layers.end() ? last.rope : full->rope;
  number(".rope.freq_base", rope.base);
  if (last.window > 0) integer(".attention.sliding_window", last.window);
  if (rope.scaling == RopeSpec::Scaling::kLinear) {
    builder.metadata.push_back(
        GgufBuilder::Entry(prefix + ".rope.scaling.type", 8, GgufBuilder::StringValue("linear")));
    number(".rope.scaling.factor", rope.factor);
  }
  const auto add = [&](const std::string& tensor_name, const at::Tensor& tensor) {
    GgufTensorEntry entry{.name = tensor_name, .dimensions = {}, .type = 0, .offset = builder.data.size()};
    for (int64_t i = tensor.dim() - 1; i >= 0; --i) entry.dimensions.push_back(tensor.size(i));
    builder.tensors.push_back(entry);
    const at::Tensor dense = tensor.contiguous();
    builder.data.append(static_cast<const char*>(dense.const_data_ptr()), dense.nbytes());
    builder.data.resize((builder.data.size() + 31) / 32 * 32);
  };
  std::map<std::tuple<int64_t, TensorRole, bool>, std::string> names;
  for (const ExpectedTensor& tensor : ExpectedTensors(spec, architecture.layout, CheckpointFormat::kGguf)) {
    names[{tensor.layer, tensor.role, tensor.bias}] = tensor.name;
  }
  for (const ExpectedTensor& from : ExpectedTensors(spec, architecture.layout, CheckpointFormat::kHuggingFace)) {
    at::Tensor tensor = *source->Load(from.name, from.shape, at::kFloat);
    if (architecture.layout.norms_less_one && IsNorm(from.role)) tensor = tensor + 1;
    if (architecture.layout.gguf_interleaves_heads &&
        (from.role == TensorRole::kQuery || from.role == TensorRole::kKey)) {
      // Half-split to interleaved pairs.
      const at::Tensor heads = tensor.unflatten(0, {-1, 2, spec.head_dim / 2});
      tensor = heads.transpose(1, 2).reshape(tensor.sizes());
    }
    add(names.at({from.layer, from.role, from.bias}), tensor);
  }
  if (rope.scaling == RopeSpec::Scaling::kLlama3) {
    RopeSpec plain = rope;
    plain.scaling = RopeSpec::Scaling::kNone;
    const std::vector<double> base = RopeFrequencies(plain, spec.head_dim),
                              scaled = RopeFrequencies(rope, spec.head_dim);
    std::vector<float> factors;
    for (size_t i = 0; i < base.size(); ++i) factors.push_back(static_cast<float>(base[i] / scaled[i]));
    add("rope_freqs.weight", at::tensor(factors));
  }
  return builder.Build();
}

class FormatsTest : public testing::TestWithParam<const char*> {};

TEST_P(FormatsTest, GgufAndHuggingFaceFilesOfTheSameWeightsAreTheSameModel) {
  const at::NoGradGuard no_grad;
  const ExactBytes bytes(ConvertToGguf(GetParam()));
  const absl::StatusOr<std::shared_ptr<const GgufFile>> file = GgufFile::Parse(bytes.span(), bytes.data, "tiny.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  const Architecture& architecture =
      **FindArchitecture(CheckpointFormat::kGguf, *(*file)->GetString("general.architecture"));
  absl::StatusOr<ModelSpec> spec = architecture.spec_from_gguf(**file);
  ASSERT_TRUE(spec.ok()) << spec.status();
  const std::shared_ptr<const CausalModel> folder = LoadTiny(GetParam());
  EXPECT_EQ(spec->tied_embeddings, folder->spec().tied_embeddings);
  EXPECT_EQ(spec->embedding_scale, folder->spec().embedding_scale);
  // Not in a file: what the tiny model has other than published ones.
  spec->attention_scale = folder->spec().attention_scale;
  const auto gguf = LoadCheckpoint(*spec, architecture.layout, *MakeTensorSource(*file), CheckpointFormat::kGguf, {});
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  const at::Tensor tokens = at::arange(60);
  EXPECT_LT(Largest(DenseLogits(**gguf, (*gguf)->Embed(tokens)) - DenseLogits(*folder, folder->Embed(tokens))), 1e-4f);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, FormatsTest, testing::Values("llama/tiny", "qwen2/tiny", "gemma3/tiny"), kName);

TEST(CheckpointLoaderTest, WeightsOfAnotherShapeAreNamed) {
  for (const auto& [key, value, tensor] :
       std::vector<std::tuple<const char*, int64_t, const char*>>{{"hidden_size", 64, "embed_tokens"},
                                                                  {"intermediate_size", 96, "gate_proj"},
                                                                  {"num_hidden_layers", 4, "layers.3"},
                                                                  {"num_key_value_heads", 4, "k_proj"},
                                                                  {"head_dim", 1 << 14, "q_proj"}}) {
    nlohmann::json config = Config("llama/tiny");
    config[key] = value;
    const absl::StatusOr<ModelSpec> spec = kLlama.spec_from_config(config, "config.json");
    ASSERT_TRUE(spec.ok()) << spec.status();
    const auto model =
        LoadCheckpoint(*spec, kLlama.layout, *Checkpoint(kData + "llama/tiny"), CheckpointFormat::kHuggingFace, {});
    ASSERT_FALSE(model.ok()) << key;
    EXPECT_TRUE(absl::StrContains(model.status().message(), tensor)) << model.status();
  }
}

}  // namespace
}  // namespace trimtab
