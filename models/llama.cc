#include "models/llama.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

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
  LlamaLoader(const ModelSpec& spec, const TensorSource& source, CheckpointFormat format, WeightForm form)
      : spec_(spec), source_(source), gguf_(format == CheckpointFormat::kGguf), form_(form) {}

  absl::StatusOr<DecoderModelWeights> Load() {
    DecoderModelWeights weights;
    const int64_t hidden = spec_.hidden_size;
    TRIMTAB_ASSIGN_OR_RETURN(
        weights.embedding,
        LoadLinear({{gguf_ ? "token_embd.weight" : "model.embed_tokens.weight", spec_.vocab_size}}, hidden));
    TRIMTAB_ASSIGN_OR_RETURN(weights.final_norm,
                             source_.Load(gguf_ ? "output_norm.weight" : "model.norm.weight", {hidden}, at::kFloat));
    if (!spec_.tied_embeddings) {
      TRIMTAB_ASSIGN_OR_RETURN(weights.head,
                               LoadLinear({{gguf_ ? "output.weight" : "lm_head.weight", spec_.vocab_size}}, hidden));
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
  // A tensor that makes some rows of a matrix.
  struct Part {
    std::string name;
    int64_t rows;
    int64_t heads = 0;  // rows of so many heads whose order depends on the format; 0: rows as they are
  };

  // In GGUF files the rows of a head are in (pair, half) order, which interleaved rotation wants; rows of ours are in
  // (half, pair) order. Empty: nothing to change.
  std::vector<int64_t> RowOrder(const Part& part) const {
    std::vector<int64_t> order;
    if (!gguf_ || part.heads == 0) return order;
    const int64_t half = spec_.head_dim / 2;
    for (int64_t row = 0; row < part.rows; ++row) {
      const int64_t head = row / spec_.head_dim, place = row % spec_.head_dim;
      order.push_back(head * spec_.head_dim + place % half * 2 + place / half);
    }
    return order;
  }

  absl::StatusOr<at::Tensor> LoadPlain(const Part& part, std::vector<int64_t> shape, at::ScalarType type) {
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor tensor, source_.Load(part.name, shape, type));
    const std::vector<int64_t> order = RowOrder(part);
    return order.empty() ? tensor : tensor.index_select(0, at::tensor(order));
  }

  // The integers of all parts; nullopt unless they are to be kept and each part has some.
  absl::StatusOr<std::optional<std::vector<GroupedWeight>>> LoadGrouped(const std::vector<Part>& parts,
                                                                        int64_t columns) {
    std::vector<GroupedWeight> grouped;
    for (const Part& part : parts) {
      if (!form_.grouped) return std::nullopt;
      TRIMTAB_ASSIGN_OR_RETURN(std::optional<GroupedWeight> weight,
                               source_.LoadGrouped(part.name, {part.rows, columns}));
      if (!weight) return std::nullopt;
      const std::vector<int64_t> order = RowOrder(part);
      grouped.push_back(order.empty() ? *std::move(weight) : PermuteRows(*weight, order));
    }
    return grouped;
  }

  // The parts below each other.
  absl::StatusOr<Linear> LoadLinear(const std::vector<Part>& parts, int64_t columns, at::Tensor bias = {}) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::vector<GroupedWeight>> grouped, LoadGrouped(parts, columns));
    if (grouped) return Linear(StackRows(*grouped), std::move(bias), form_.plain_type);
    std::vector<at::Tensor> plain;
    for (const Part& part : parts) {
      TRIMTAB_ASSIGN_OR_RETURN(plain.emplace_back(), LoadPlain(part, {part.rows, columns}, form_.plain_type));
    }
    return Linear(plain.size() == 1 ? plain[0] : at::cat(plain, 0), std::move(bias));
  }

  absl::StatusOr<GatedLinear> LoadGated(const Part& gate, const Part& up, int64_t columns, const at::Tensor& gate_bias,
                                        const at::Tensor& up_bias) {
    if (!gate_bias.defined()) {
      TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::vector<GroupedWeight>> grouped,
                               LoadGrouped({gate, up}, columns));
      if (grouped) return GatedLinear((*grouped)[0], (*grouped)[1], form_.plain_type);
    }
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor plain_gate, LoadPlain(gate, {gate.rows, columns}, form_.plain_type));
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor plain_up, LoadPlain(up, {up.rows, columns}, form_.plain_type));
    return GatedLinear(plain_gate, plain_up, gate_bias, up_bias);
  }

  // Undefined unless `present`.
  absl::StatusOr<at::Tensor> LoadBias(bool present, const Part& part) {
    if (!present) return at::Tensor();
    return LoadPlain(part, {part.rows}, at::kFloat);
  }

  absl::StatusOr<DecoderLayerWeights> LoadLayer(int64_t layer) {
    const LayerSpec& spec = spec_.layers[static_cast<size_t>(layer)];
    const std::string prefix = gguf_ ? absl::StrCat("blk.", layer, ".") : absl::StrCat("model.layers.", layer, ".");
    const int64_t hidden = spec_.hidden_size, ff = spec_.intermediate_size;
    const int64_t q_rows = spec_.num_heads * spec_.head_dim, kv_rows = spec_.num_kv_heads * spec_.head_dim;
    const auto part = [&](const char* hugging_face, const char* gguf, const char* kind, int64_t rows,
                          int64_t heads = 0) {
      return Part{absl::StrCat(prefix, gguf_ ? gguf : hugging_face, kind), rows, heads};
    };
    DecoderLayerWeights weights;
    TRIMTAB_ASSIGN_OR_RETURN(
        weights.attention_norm,
        source_.Load(part("input_layernorm", "attn_norm", ".weight", hidden).name, {hidden}, at::kFloat));
    const auto qkv = [&](const char* kind) {
      return std::vector<Part>{part("self_attn.q_proj", "attn_q", kind, q_rows, spec_.num_heads),
                               part("self_attn.k_proj", "attn_k", kind, kv_rows, spec_.num_kv_heads),
                               part("self_attn.v_proj", "attn_v", kind, kv_rows)};
    };
    at::Tensor qkv_bias;
    if (spec.qkv_bias) {
      std::vector<at::Tensor> biases;
      for (const Part& bias : qkv(".bias")) {
        TRIMTAB_ASSIGN_OR_RETURN(biases.emplace_back(), LoadBias(true, bias));
      }
      qkv_bias = at::cat(biases, 0);
    }
    TRIMTAB_ASSIGN_OR_RETURN(weights.qkv, LoadLinear(qkv(".weight"), hidden, qkv_bias));
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor output_bias,
                             LoadBias(spec.output_bias, part("self_attn.o_proj", "attn_output", ".bias", hidden)));
    TRIMTAB_ASSIGN_OR_RETURN(
        weights.attention_output,
        LoadLinear({part("self_attn.o_proj", "attn_output", ".weight", hidden)}, q_rows, output_bias));
    TRIMTAB_ASSIGN_OR_RETURN(
        weights.mlp_norm,
        source_.Load(part("post_attention_layernorm", "ffn_norm", ".weight", hidden).name, {hidden}, at::kFloat));
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor gate_bias,
                             LoadBias(spec.mlp_bias, part("mlp.gate_proj", "ffn_gate", ".bias", ff)));
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor up_bias,
                             LoadBias(spec.mlp_bias, part("mlp.up_proj", "ffn_up", ".bias", ff)));
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor down_bias,
                             LoadBias(spec.mlp_bias, part("mlp.down_proj", "ffn_down", ".bias", hidden)));
    TRIMTAB_ASSIGN_OR_RETURN(weights.gate_up,
                             LoadGated(part("mlp.gate_proj", "ffn_gate", ".weight", ff),
                                       part("mlp.up_proj", "ffn_up", ".weight", ff), hidden, gate_bias, up_bias));
    TRIMTAB_ASSIGN_OR_RETURN(weights.down,
                             LoadLinear({part("mlp.down_proj", "ffn_down", ".weight", hidden)}, ff, down_bias));
    return weights;
  }

  const ModelSpec& spec_;
  const TensorSource& source_;
  const bool gguf_;
  const WeightForm form_;
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
                                                             CheckpointFormat format, WeightForm form) {
  TRIMTAB_ASSIGN_OR_RETURN(DecoderModelWeights weights, LlamaLoader(spec, source, format, form).Load());
  return MakeDecoderModel(spec, std::move(weights));
}

}  // namespace trimtab
