#include "models/model_description.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "models/weights/file_error.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

constexpr uintmax_t kMaxJsonBytes = uintmax_t{128} << 20;

// The key's text; empty when it is absent or something else.
std::string TextOf(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

std::string WeightType(const nlohmann::json& config) {
  std::string type = TextOf(config, "torch_dtype");
  if (type.empty()) type = TextOf(config, "dtype");  // transformers 5
  if (type == "bfloat16") return "BF16";
  if (type == "float16") return "F16";
  return type == "float32" ? "F32" : "";
}

}  // namespace

absl::StatusOr<std::string> ReadModelText(const std::string& path) {
  std::error_code error;
  if (std::filesystem::file_size(path, error) > kMaxJsonBytes || error) {
    return ModelFileError(path, error ? "cannot be read" : "is larger than 128 MiB");
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file.good()) return ModelFileError(path, "cannot be read");
  return std::move(text).str();
}

absl::StatusOr<nlohmann::json> ParseModelJson(const std::string& text, const std::string& path) {
  nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return ModelFileError(path, "is not a JSON object");
  return json;
}

absl::StatusOr<ModelDescription> DescribeHuggingFace(const std::string& config_path) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::string text, ReadModelText(config_path));
  TRIMTAB_ASSIGN_OR_RETURN(const nlohmann::json config, ParseModelJson(text, config_path));
  std::string name;
  if (config.contains("architectures") && config["architectures"].is_array() && !config["architectures"].empty() &&
      config["architectures"][0].is_string()) {
    name = config["architectures"][0].get<std::string>();
  }
  ModelDescription description;
  TRIMTAB_ASSIGN_OR_RETURN(description.architecture, FindArchitecture(CheckpointFormat::kHuggingFace, name));
  TRIMTAB_ASSIGN_OR_RETURN(description.spec, description.architecture->spec_from_config(config, config_path));
  description.weight_type = WeightType(config);
  return description;
}

absl::StatusOr<ModelDescription> DescribeGguf(const GgufFile& file) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::string_view name, file.GetString("general.architecture"));
  ModelDescription description;
  TRIMTAB_ASSIGN_OR_RETURN(description.architecture, FindArchitecture(CheckpointFormat::kGguf, name));
  TRIMTAB_ASSIGN_OR_RETURN(description.spec, description.architecture->spec_from_gguf(file));
  return description;
}

}  // namespace trimtab
