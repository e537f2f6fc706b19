#include "models/testing/tiny_model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace trimtab {
namespace {

constexpr int64_t kVocabulary = 260;  // 256 bytes, four added tokens

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "tiny model: %s\n", value.status().ToString().c_str());
    std::abort();
  }
  return *std::move(value);
}

// The characters that stand for bytes in byte-level vocabularies (Radford et al. 2019), as UTF-8.
std::vector<std::string> ByteCharacters() {
  std::vector<std::string> characters;
  int shifted = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int code = printable ? byte : 256 + shifted++;
    if (code < 128) {
      characters.push_back(std::string(1, static_cast<char>(code)));
    } else {
      characters.push_back({static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))});
    }
  }
  return characters;
}

// The nearest 8-bit form of a matrix.
GroupedWeight InGroups(const at::Tensor& weight) {
  const at::Tensor groups = weight.to(at::kFloat).contiguous().view({-1, kWeightGroup});
  GroupedWeight grouped{.bits = 8, .rows = weight.size(0), .columns = weight.size(1)};
  for (int64_t g = 0; g < groups.size(0); ++g) {
    const float* values = groups.const_data_ptr<float>() + g * kWeightGroup;
    const auto [low, high] = std::minmax_element(values, values + kWeightGroup);
    const float scale = std::max((*high - *low) / 255, 1e-6f);
    for (int64_t i = 0; i < kWeightGroup; ++i) {
      grouped.quants.push_back(static_cast<uint8_t>(std::clamp(std::round((values[i] - *low) / scale), 0.0f, 255.0f)));
    }
    grouped.scales.push_back(scale);
    grouped.minimums.push_back(*low);
  }
  return grouped;
}

}  // namespace

ModelSpec TinyModelSpec(const TinyModelOptions& options) {
  ModelSpec spec;
  spec.architecture = "llama";
  spec.vocab_size = kVocabulary;
  spec.hidden_size = options.hidden_size;
  spec.intermediate_size = 2 * options.hidden_size;
  spec.num_heads = options.num_heads;
  spec.num_kv_heads = options.num_kv_heads;
  spec.head_dim = options.hidden_size / options.num_heads;
  spec.context_length = options.context_length;
  spec.tied_embeddings = true;
  spec.layers.assign(static_cast<size_t>(options.num_layers), LayerSpec{});
  switch (options.architecture) {
    case TinyArchitecture::kLlama:
      break;
    case TinyArchitecture::kQwen2:
      spec.architecture = "qwen2";
      for (LayerSpec& layer : spec.layers) layer.qkv_bias = true;
      break;
    case TinyArchitecture::kMistral:
      spec.architecture = "mistral";
      for (LayerSpec& layer : spec.layers) layer.window = kTinyWindow;
      break;
    case TinyArchitecture::kGemma3:
      spec.architecture = "gemma3";
      spec.head_dim = 2 * spec.hidden_size / spec.num_heads;
      spec.embedding_scale = std::sqrt(static_cast<float>(spec.hidden_size));
      spec.attention_scale = 0.2;
      for (size_t i = 0; i < spec.layers.size(); ++i) {
        LayerSpec& layer = spec.layers[i];
        layer.qk_norm = layer.sandwich_norms = true;
        layer.activation = Activation::kGeluTanh;
        if (i % 3 == 2) {
          layer.rope = {.base = 1e6, .scaling = RopeSpec::Scaling::kLinear, .factor = 8};
        } else {
          layer.window = kTinyWindow;
        }
      }
  }
  return spec;
}

DecoderModelWeights TinyModelWeights(const ModelSpec& spec, uint64_t seed, at::ScalarType dtype, bool grouped) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto random = [&](int64_t rows, int64_t columns, double scale) {
    return (at::randn({rows, columns}, generator, at::kFloat) * scale).to(dtype);
  };
  const auto norm_of = [&](int64_t size) { return at::randn({size}, generator, at::kFloat) * 0.1 + 1.0; };
  const auto norm = [&] { return norm_of(spec.hidden_size); };
  const auto linear = [&](const at::Tensor& weight, const at::Tensor& bias = {}) {
    return grouped ? Linear(InGroups(weight), bias, dtype) : Linear(weight, bias);
  };
  const int64_t hidden = spec.hidden_size, q = spec.num_heads * spec.head_dim, kv = spec.num_kv_heads * spec.head_dim;
  const int64_t ff = spec.intermediate_size;
  const double in = 1 / std::sqrt(static_cast<double>(hidden));
  DecoderModelWeights weights;
  weights.embedding = linear(random(spec.vocab_size, hidden, 1 / spec.embedding_scale));
  weights.final_norm = norm();
  for (const LayerSpec& layer : spec.layers) {
    DecoderLayerWeights block;
    block.attention_norm = norm();
    const at::Tensor qkv = random(q + 2 * kv, hidden, 2 * in);
    block.qkv = linear(qkv, layer.qkv_bias ? random(1, q + 2 * kv, 0.5)[0] : at::Tensor());
    if (layer.qk_norm) {
      block.query_norm = norm_of(spec.head_dim);
      block.key_norm = norm_of(spec.head_dim);
    }
    if (layer.sandwich_norms) block.post_attention_norm = norm();
    block.attention_output = linear(random(hidden, q, in));
    block.mlp_norm = norm();
    const at::Tensor both = random(2 * ff, hidden, in), gate = both.narrow(0, 0, ff), up = both.narrow(0, ff, ff);
    block.gate_up = grouped ? GatedLinear(InGroups(gate), InGroups(up), dtype) : GatedLinear(gate, up);
    block.down = linear(random(hidden, ff, in));
    if (layer.sandwich_norms) block.post_mlp_norm = norm();
    weights.layers.push_back(std::move(block));
  }
  return weights;
}

std::shared_ptr<const CausalModel> MakeTinyModel(const TinyModelOptions& options) {
  ModelSpec spec = TinyModelSpec(options);
  DecoderModelWeights weights = TinyModelWeights(spec, options.seed, options.dtype, options.grouped);
  return MakeDecoderModel(std::move(spec), std::move(weights));
}

std::shared_ptr<const Tokenizer> TinyTokenizer() {
  GgufVocabulary vocabulary{.model = "gpt2", .pre = "smollm", .tokens = ByteCharacters()};
  vocabulary.token_types.assign(256, 1);
  for (const char* added : {"<|end|>", "<|user|>", "<|assistant|>", "<|pad|>"}) {
    vocabulary.tokens.push_back(added);
    vocabulary.token_types.push_back(3);
  }
  vocabulary.eos = 256;
  vocabulary.pad = 259;
  vocabulary.add_bos = false;
  return OrDie(Tokenizer::FromGguf(std::move(vocabulary)));
}

std::shared_ptr<const LoadedModel> MakeTinyLoadedModel(const TinyModelOptions& options) {
  LoadedModel loaded;
  loaded.id = "tiny";
  loaded.display_name = "Tiny random model";
  loaded.model = MakeTinyModel(options);
  loaded.fingerprint = absl::StrCat("tiny-", loaded.model->spec().architecture, "-", options.num_layers, "-",
                                    options.hidden_size, "-", options.seed);
  loaded.quantization = "F32";
  loaded.precision = options.grouped ? "file" : options.dtype == at::kFloat ? "float32" : "bfloat16";
  loaded.tokenizer = TinyTokenizer();
  loaded.mask_token = 259;
  std::shared_ptr<const ChatTemplate> chat = OrDie(ChatTemplate::Create(
      "{% for message in messages %}{{ '<|user|>' if message.role == 'user' else '<|assistant|>' }}"
      "{{ message.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
      "", "<|end|>"));
  loaded.prompts = std::make_shared<PromptBuilder>(loaded.tokenizer, std::move(chat), /*add_bos=*/false);
  return std::make_shared<const LoadedModel>(std::move(loaded));
}

}  // namespace trimtab
