#include "models/llama.h"

#include <ATen/ops/cat.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/decoder_model.h"
#include "models/weights/file_error.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

// Bounds far above any real model that keep products of two dimensions within 64 bits.
constexpr int64_t kMaxDimension = int64_t{1} << 24;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxContext = int64_t{1} << 24;

// Reads keys of one config with range checks; the first fault stays.
class ConfigReader {
 public:
  ConfigReader(const nlohmann::json& config, const std::string& path) : config_(config), path_(path) {}

  int64_t Integer(const char* key, int64_t low, int64_t high, std::optional<int64_t> missing = std::nullopt) {
    const auto found = config_.find(key);
    if (found == config_.end() || found->is_null()) {
      if (missing) return *missing;
      return Fail(key, "is missing");
    }
    if (!found->is_number_integer()) return Fail(key, "is not an integer");
    const int64_t value = found->is_number_unsigned() && found->get<uint64_t>() > std::numeric_limits<int64_t>::max()
                              ? std::numeric_limits<int64_t>::max()
                              : found->get<int64_t>();
    if (value < low || value > high) return Fail(key, absl::StrCat("must be between ", low, " and ", high));
    return value;
  }
  double Number(const char* key, double low, double high, std::optional<double> missing = std::nullopt) {
    const auto found = config_.find(key);
    if (found == config_.end() || found->is_null()) {
      if (missing) return *missing;
      return static_cast<double>(Fail(key, "is missing"));
    }
    if (!found->is_number()) return static_cast<double>(Fail(key, "is not a number"));
    const double value = found->get<double>();
    if (!(value >= low && value <= high)) {
      return static_cast<double>(Fail(key, absl::StrCat("must be between ", low, " and ", high)));
    }
    return value;
  }
  bool Flag(const char* key, bool missing) {
    const auto found = config_.find(key);
    if (found == config_.end() || found->is_null()) return missing;
    if (!found->is_boolean()) return Fail(key, "is not true or false") != 0;
    return found->get<bool>();
  }
  int64_t Fail(absl::string_view key, absl::string_view what) {
    if (status_.ok()) status_ = ModelFileError(path_, absl::StrCat("\"", key, "\" ", what));
    return 1;
  }
  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json& config_;
  const std::string& path_;
  absl::Status status_;
};

absl::Status CheckShape(const ModelSpec& spec, const std::string& path) {
  if (spec.num_heads % spec.num_kv_heads != 0) {
    return ModelFileError(path, "the number of key heads must divide the number of heads");
  }
  if (spec.head_dim % 2 != 0) return ModelFileError(path, "the head dimension must be even");
  return absl::OkStatus();
}

absl::StatusOr<RopeSpec> RopeFromConfig(const nlohmann::json& config, const std::string& path) {
  // transformers 5 writes rope_parameters, which hold the base too; older ones rope_theta and rope_scaling.
  nlohmann::json scaling = nlohmann::json::object();
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (config.contains(key) && config[key].is_object()) scaling = config[key];
  }
  RopeSpec rope;
  ConfigReader reader(scaling.contains("rope_theta") ? scaling : config, path);
  rope.base = reader.Number("rope_theta", 1, 1e12, 10000);
  ConfigReader values(scaling, path);
  const nlohmann::json kind =
      scaling.contains("rope_type") ? scaling["rope_type"] : scaling.value("type", nlohmann::json());
  const std::string type = kind.is_string() ? kind.get<std::string>() : "default";
  if (type == "linear") {
    rope.scaling = RopeSpec::Scaling::kLinear;
    rope.factor = values.Number("factor", 1, 1e6);
  } else if (type == "llama3") {
    rope.scaling = RopeSpec::Scaling::kLlama3;
    rope.factor = values.Number("factor", 1, 1e6);
    rope.low_frequency_factor = values.Number("low_freq_factor", 1e-3, 1e6);
    rope.high_frequency_factor = values.Number("high_freq_factor", 1e-3, 1e6);
    rope.original_context = values.Integer("original_max_position_embeddings", 1, kMaxContext);
    if (values.status().ok() && rope.low_frequency_factor >= rope.high_frequency_factor) {
      values.Fail("low_freq_factor", "must be below high_freq_factor");
    }
  } else if (type != "default") {
    return absl::UnimplementedError(absl::StrCat(path, ": rope scaling \"", type, "\" is not supported"));
  }
  TRIMTAB_RETURN_IF_ERROR(reader.status());
  TRIMTAB_RETURN_IF_ERROR(values.status());
  return rope;
}

// Loads the tensors of one checkpoint under the names of its format.
class LlamaLoader {
 public:
  LlamaLoader(const ModelSpec& spec, const TensorSource& source, CheckpointFormat format, at::ScalarType dtype)
      : spec_(spec), source_(source), gguf_(format == CheckpointFormat::kGguf), dtype_(dtype) {}

  absl::StatusOr<DecoderModelWeights> Load() {
    DecoderModelWeights weights;
    const int64_t hidden = spec_.hidden_size;
    TRIMTAB_ASSIGN_OR_RETURN(
        weights.embedding, Get(gguf_ ? "token_embd.weight" : "model.embed_tokens.weight", {spec_.vocab_size, hidden}));
    TRIMTAB_ASSIGN_OR_RETURN(weights.final_norm,
                             source_.Load(gguf_ ? "output_norm.weight" : "model.norm.weight", {hidden}, at::kFloat));
    if (!spec_.tied_embeddings) {
      TRIMTAB_ASSIGN_OR_RETURN(weights.head,
                               Get(gguf_ ? "output.weight" : "lm_head.weight", {spec_.vocab_size, hidden}));
    }
    if (gguf_ && source_.Find("rope_freqs.weight") != nullptr) {
      TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor factors,
                               source_.Load("rope_freqs.weight", {spec_.head_dim / 2}, at::kFloat));
      const float* values = factors.const_data_ptr<float>();
      for (int64_t i = 0; i < spec_.head_dim / 2; ++i) {
        if (!(values[i] > 0) || !std::isfinite(values[i])) {
          return absl::InvalidArgumentError("rope_freqs.weight holds a factor that is not positive");
        }
        weights.rope_factors.push_back(values[i]);
      }
    }
    for (int64_t layer = 0; layer < spec_.num_layers(); ++layer) {
      TRIMTAB_ASSIGN_OR_RETURN(DecoderLayerWeights loaded, LoadLayer(layer));
      weights.layers.push_back(std::move(loaded));
    }
    return weights;
  }

 private:
  absl::StatusOr<at::Tensor> Get(const std::string& name, std::vector<int64_t> shape) {
    return source_.Load(name, shape, dtype_);
  }

  // Rows of each head from (pair, half) order, which interleaved rotation wants, to (half, pair) order.
  at::Tensor Unpermute(const at::Tensor& weight, int64_t heads) const {
    if (!gguf_) return weight;
    return weight.unflatten(0, {heads, spec_.head_dim / 2, 2}).transpose(1, 2).flatten(0, 2).contiguous();
  }

  absl::StatusOr<DecoderLayerWeights> LoadLayer(int64_t layer) {
    const LayerSpec& spec = spec_.layers[static_cast<size_t>(layer)];
    const std::string prefix = gguf_ ? absl::StrCat("blk.", layer, ".") : absl::StrCat("model.layers.", layer, ".");
    const int64_t hidden = spec_.hidden_size, ff = spec_.intermediate_size;
    const int64_t q_rows = spec_.num_heads * spec_.head_dim, kv_rows = spec_.num_kv_heads * spec_.head_dim;
    const auto name = [&](const char* hugging_face, const char* gguf) {
      return prefix + (gguf_ ? gguf : hugging_face);
    };
    const auto bias_of = [&](const char* hugging_face, const char* gguf, int64_t rows,
                             bool present) -> absl::StatusOr<at::Tensor> {
      if (!present) return at::Tensor();
      return Get(name(hugging_face, gguf) + ".bias", {rows});
    };
    DecoderLayerWeights weights;
    TRIMTAB_ASSIGN_OR_RETURN(weights.attention_norm,
                             source_.Load(name("input_layernorm", "attn_norm") + ".weight", {hidden}, at::kFloat));
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor q, Get(name("self_attn.q_proj", "attn_q") + ".weight", {q_rows, hidden}));
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor k, Get(name("self_attn.k_proj", "attn_k") + ".weight", {kv_rows, hidden}));
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor v, Get(name("self_attn.v_proj", "attn_v") + ".weight", {kv_rows, hidden}));
    at::Tensor qkv_bias;
    if (spec.qkv_bias) {
      TRIMTAB_ASSIGN_OR_RETURN(at::Tensor qb, bias_of("self_attn.q_proj", "attn_q", q_rows, true));
      TRIMTAB_ASSIGN_OR_RETURN(at::Tensor kb, bias_of("self_attn.k_proj", "attn_k", kv_rows, true));
      TRIMTAB_ASSIGN_OR_RETURN(at::Tensor vb, bias_of("self_attn.v_proj", "attn_v", kv_rows, true));
      qkv_bias = at::cat({Unpermute(qb, spec_.num_heads), Unpermute(kb, spec_.num_kv_heads), vb}, 0);
    }
    weights.qkv = Linear(at::cat({Unpermute(q, spec_.num_heads), Unpermute(k, spec_.num_kv_heads), v}, 0), qkv_bias);
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor output,
                             Get(name("self_attn.o_proj", "attn_output") + ".weight", {hidden, q_rows}));
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor output_bias,
                             bias_of("self_attn.o_proj", "attn_output", hidden, spec.output_bias));
    weights.attention_output = Linear(std::move(output), std::move(output_bias));
    TRIMTAB_ASSIGN_OR_RETURN(
        weights.mlp_norm, source_.Load(name("post_attention_layernorm", "ffn_norm") + ".weight", {hidden}, at::kFloat));
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor gate, Get(name("mlp.gate_proj", "ffn_gate") + ".weight", {ff, hidden}));
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor up, Get(name("mlp.up_proj", "ffn_up") + ".weight", {ff, hidden}));
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor down, Get(name("mlp.down_proj", "ffn_down") + ".weight", {hidden, ff}));
    at::Tensor gate_up_bias;
    if (spec.mlp_bias) {
      TRIMTAB_ASSIGN_OR_RETURN(at::Tensor gb, bias_of("mlp.gate_proj", "ffn_gate", ff, true));
      TRIMTAB_ASSIGN_OR_RETURN(at::Tensor ub, bias_of("mlp.up_proj", "ffn_up", ff, true));
      gate_up_bias = at::cat({gb, ub}, 0);
    }
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor down_bias, bias_of("mlp.down_proj", "ffn_down", hidden, spec.mlp_bias));
    weights.gate_up = Linear(at::cat({gate, up}, 0), gate_up_bias);
    weights.down = Linear(std::move(down), std::move(down_bias));
    return weights;
  }

  const ModelSpec& spec_;
  const TensorSource& source_;
  const bool gguf_;
  const at::ScalarType dtype_;
};

}  // namespace

absl::StatusOr<ModelSpec> LlamaSpecFromConfig(const nlohmann::json& config, const std::string& path) {
  ConfigReader reader(config, path);
  ModelSpec spec;
  spec.architecture = "llama";
  spec.vocab_size = reader.Integer("vocab_size", 1, kMaxDimension);
  spec.hidden_size = reader.Integer("hidden_size", 1, kMaxDimension);
  spec.intermediate_size = reader.Integer("intermediate_size", 1, kMaxDimension);
  spec.num_heads = reader.Integer("num_attention_heads", 1, 1 << 16);
  spec.num_kv_heads = reader.Integer("num_key_value_heads", 1, 1 << 16, spec.num_heads);
  spec.head_dim = reader.Integer("head_dim", 2, 1 << 16, std::max<int64_t>(spec.hidden_size / spec.num_heads, 2));
  spec.context_length = reader.Integer("max_position_embeddings", 1, kMaxContext);
  spec.norm_eps = reader.Number("rms_norm_eps", 0, 1, 1e-6);
  spec.tied_embeddings = reader.Flag("tie_word_embeddings", false);
  const int64_t layers = reader.Integer("num_hidden_layers", 1, kMaxLayers);
  const bool attention_bias = reader.Flag("attention_bias", false);
  LayerSpec layer{
      .qkv_bias = attention_bias, .output_bias = attention_bias, .mlp_bias = reader.Flag("mlp_bias", false)};
  TRIMTAB_RETURN_IF_ERROR(reader.status());
  const std::string activation = config.contains("hidden_act") && config["hidden_act"].is_string()
                                     ? config["hidden_act"].get<std::string>()
                                     : "silu";
  if (activation != "silu") {
    return absl::UnimplementedError(absl::StrCat(path, ": activation \"", activation, "\" is not supported"));
  }
  TRIMTAB_ASSIGN_OR_RETURN(layer.rope, RopeFromConfig(config, path));
  spec.layers.assign(static_cast<size_t>(layers), layer);
  TRIMTAB_RETURN_IF_ERROR(CheckShape(spec, path));
  return spec;
}

absl::StatusOr<ModelSpec> LlamaSpecFromGguf(const GgufFile& file) {
  // The metadata as a Hugging Face config: one place then checks both.
  absl::Status fault;  // the first key of a wrong type; an absent key is null
  const auto json_or_null = [&fault](const auto& value) -> nlohmann::json {
    if (value.ok()) return *value;
    if (!absl::IsNotFound(value.status())) fault.Update(value.status());
    return nullptr;
  };
  const auto integer = [&](std::string_view key) { return json_or_null(file.GetInt(key)); };
  const auto number = [&](std::string_view key) { return json_or_null(file.GetFloat(key)); };
  nlohmann::json config;
  config["hidden_size"] = integer("llama.embedding_length");
  config["intermediate_size"] = integer("llama.feed_forward_length");
  config["num_attention_heads"] = integer("llama.attention.head_count");
  config["num_key_value_heads"] = integer("llama.attention.head_count_kv");
  config["head_dim"] = integer("llama.attention.key_length");
  config["max_position_embeddings"] = integer("llama.context_length");
  config["rms_norm_eps"] = number("llama.attention.layer_norm_rms_epsilon");
  config["num_hidden_layers"] = integer("llama.block_count");
  config["rope_theta"] = number("llama.rope.freq_base");
  const RawTensor* embedding = nullptr;
  bool has_head = false;
  for (const RawTensor& tensor : file.tensors()) {
    if (tensor.info.name == "token_embd.weight") embedding = &tensor;
    has_head = has_head || tensor.info.name == "output.weight";
  }
  if (embedding == nullptr || embedding->info.shape.size() != 2) {
    return ModelFileError(file.path(), "tensor \"token_embd.weight\" is missing or not a matrix");
  }
  config["vocab_size"] = embedding->info.shape[0];
  config["tie_word_embeddings"] = !has_head;
  TRIMTAB_ASSIGN_OR_RETURN(const std::string_view scaling, file.GetStringOr("llama.rope.scaling.type", "none"));
  if (scaling == "linear") {
    config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", number("llama.rope.scaling.factor")}};
  } else if (scaling != "none") {
    return absl::UnimplementedError(
        absl::StrCat(file.path(), ": rope scaling ", QuoteName(scaling), " is not supported"));
  }
  TRIMTAB_RETURN_IF_ERROR(fault);
  return LlamaSpecFromConfig(config, file.path());
}

absl::StatusOr<std::shared_ptr<const CausalModel>> LoadLlama(const ModelSpec& spec, const TensorSource& source,
                                                             CheckpointFormat format, at::ScalarType dtype) {
  TRIMTAB_ASSIGN_OR_RETURN(DecoderModelWeights weights, LlamaLoader(spec, source, format, dtype).Load());
  return MakeDecoderModel(spec, std::move(weights));
}

}  // namespace trimtab
