#include "models/config_reader.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/weights/file_error.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

// Bounds far above any real model that keep products of two dimensions within 64 bits.
constexpr int64_t kMaxDimension = int64_t{1} << 24;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxContext = int64_t{1} << 24;
constexpr int64_t kMaxHeads = 1 << 16;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

const nlohmann::json* ConfigReader::Find(const char* key) const {
  const auto found = config_.find(key);
  return found == config_.end() || found->is_null() ? nullptr : &*found;
}

void ConfigReader::Fail(std::string_view key, std::string_view what) {
  if (status_.ok()) status_ = ModelFileError(path_, absl::StrCat("\"", View(key), "\" ", View(what)));
}

void ConfigReader::Refuse(std::string_view what) {
  if (status_.ok()) status_ = absl::UnimplementedError(absl::StrCat(path_, ": ", View(what), " is not supported"));
}

int64_t ConfigReader::Integer(const char* key, int64_t low, int64_t high, std::optional<int64_t> missing) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (!missing) Fail(key, "is missing");
    return missing.value_or(low);
  }
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  int64_t number = low;
  if (!value->is_number_integer()) {
    Fail(key, "is not an integer");
  } else if (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(kMost)) {
    number = kMost;
  } else {
    number = value->get<int64_t>();
  }
  if (number >= low && number <= high) return number;
  Fail(key, absl::StrCat("must be between ", low, " and ", high));
  return low;
}

double ConfigReader::Number(const char* key, double low, double high, std::optional<double> missing) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (!missing) Fail(key, "is missing");
    return missing.value_or(low);
  }
  if (!value->is_number()) {
    Fail(key, "is not a number");
    return low;
  }
  const double number = value->get<double>();
  if (number >= low && number <= high) return number;
  Fail(key, absl::StrCat("must be between ", low, " and ", high));
  return low;
}

bool ConfigReader::Flag(const char* key, bool missing) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return missing;
  if (value->is_boolean()) return value->get<bool>();
  Fail(key, "is not true or false");
  return missing;
}

std::string ConfigReader::Text(const char* key, const std::string& missing) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return missing;
  if (value->is_string()) return value->get<std::string>();
  Fail(key, "is not a text");
  return missing;
}

Activation ConfigReader::ReadActivation(const char* key, const std::string& missing) {
  const std::string name = Text(key, missing);
  if (name == "silu") return Activation::kSilu;
  if (name != "gelu_pytorch_tanh") Refuse(absl::StrCat("activation ", QuoteName(name)));
  return Activation::kGeluTanh;
}

RopeSpec ConfigReader::ReadRope() {
  static const nlohmann::json kNothing = nlohmann::json::object();
  const nlohmann::json* scaling = &kNothing;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (const nlohmann::json* value = Find(key); value != nullptr && value->is_object()) scaling = value;
  }
  RopeSpec rope;
  ConfigReader values(*scaling, path_);
  rope.base = (values.Has("rope_theta") ? values : *this).Number("rope_theta", 1, 1e12, 10000);
  const std::string type = values.Text("rope_type", values.Text("type", "default"));
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
    values.Refuse(absl::StrCat("rope scaling ", QuoteName(type)));
  }
  Adopt(values.status());
  return rope;
}

std::vector<bool> ConfigReader::ReadSlidingLayers(int64_t count, const std::vector<bool>& missing) {
  const nlohmann::json* types = Find("layer_types");
  if (types == nullptr) return missing;
  if (!types->is_array() || static_cast<int64_t>(types->size()) != count) {
    Fail("layer_types", absl::StrCat("is not a list of ", count, " kinds of layers"));
    return missing;
  }
  std::vector<bool> sliding;
  for (const nlohmann::json& type : *types) {
    sliding.push_back(type == "sliding_attention");
    if (type != "sliding_attention" && type != "full_attention") {
      Refuse(absl::StrCat("layer type ", QuoteName(type.is_string() ? type.get<std::string>() : type.dump())));
    }
  }
  return sliding;
}

ModelSpec ConfigReader::ReadSizes(std::string architecture, int64_t& num_layers) {
  ModelSpec spec;
  spec.architecture = std::move(architecture);
  spec.vocab_size = Integer("vocab_size", 1, kMaxDimension);
  spec.hidden_size = Integer("hidden_size", 1, kMaxDimension);
  spec.intermediate_size = Integer("intermediate_size", 1, kMaxDimension);
  spec.num_heads = Integer("num_attention_heads", 1, kMaxHeads);
  spec.num_kv_heads = Integer("num_key_value_heads", 1, kMaxHeads, spec.num_heads);
  spec.head_dim = Integer("head_dim", 2, 1 << 16, std::max<int64_t>(spec.hidden_size / spec.num_heads, 2));
  spec.context_length = Integer("max_position_embeddings", 1, kMaxContext);
  spec.norm_eps = Number("rms_norm_eps", 0, 1, 1e-6);
  spec.tied_embeddings = Flag("tie_word_embeddings", false);
  num_layers = Integer("num_hidden_layers", 1, kMaxLayers);
  return spec;
}

absl::StatusOr<ModelSpec> Finish(const ConfigReader& reader, ModelSpec spec) {
  TRIMTAB_RETURN_IF_ERROR(reader.status());
  if (spec.num_heads % spec.num_kv_heads != 0) {
    return ModelFileError(reader.path(), "the number of key heads must divide the number of heads");
  }
  if (spec.head_dim % 2 != 0) return ModelFileError(reader.path(), "the head dimension must be even");
  return spec;
}

absl::StatusOr<nlohmann::json> ConfigFromGguf(const GgufFile& file, const std::string& architecture) {
  absl::Status fault;  // the first key of a wrong type; an absent key is null
  const auto json_or_null = [&fault](const auto& value) -> nlohmann::json {
    if (value.ok()) return *value;
    if (!absl::IsNotFound(value.status())) fault.Update(value.status());
    return nullptr;
  };
  const auto integer = [&](const char* key) { return json_or_null(file.GetInt(architecture + "." + key)); };
  const auto number = [&](const char* key) { return json_or_null(file.GetFloat(architecture + "." + key)); };
  nlohmann::json config;
  config["hidden_size"] = integer("embedding_length");
  config["intermediate_size"] = integer("feed_forward_length");
  config["num_attention_heads"] = integer("attention.head_count");
  config["num_key_value_heads"] = integer("attention.head_count_kv");
  config["head_dim"] = integer("attention.key_length");
  config["max_position_embeddings"] = integer("context_length");
  config["rms_norm_eps"] = number("attention.layer_norm_rms_epsilon");
  config["num_hidden_layers"] = integer("block_count");
  config["rope_theta"] = number("rope.freq_base");
  config["sliding_window"] = integer("attention.sliding_window");
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
  TRIMTAB_ASSIGN_OR_RETURN(const std::string_view scaling,
                           file.GetStringOr(architecture + ".rope.scaling.type", "none"));
  if (scaling == "linear") {
    config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", number("rope.scaling.factor")}};
  } else if (scaling != "none") {
    return absl::UnimplementedError(
        absl::StrCat(file.path(), ": rope scaling ", QuoteName(scaling), " is not supported"));
  }
  TRIMTAB_RETURN_IF_ERROR(fault);
  return config;
}

}  // namespace trimtab
