#include "server/config.h"

#include <filesystem>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/base/resource_name.h"

namespace trimtab {
namespace {

// Each costs some 15 series, and as many again for each drift suite.
constexpr int64_t kMaxMetricsObjectives = 4096;

absl::Status CheckAddress(const std::string& address, const char* setting, bool allow_insecure) {
  if (allow_insecure || IsLoopback(address)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(setting, " ", address,
                   " is not loopback and this server speaks plaintext: put a TLS proxy in front of a loopback address, "
                   "or give --allow_insecure if the network is trusted"));
}

}  // namespace

bool IsLoopback(const std::string& address) {
  if (absl::StartsWith(address, "unix:")) return true;
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return false;
  const std::string host = address.substr(0, colon);
  return host == "localhost" || host == "[::1]" || host == "::1" || absl::StartsWith(host, "127.");
}

ModelSource ParseModelSource(const std::string& text) {
  if (const size_t equals = text.find('='); equals != std::string::npos && IsValidId(text.substr(0, equals))) {
    return {.id = text.substr(0, equals), .path = text.substr(equals + 1)};
  }
  std::string name = text;
  while (name.size() > 1 && name.back() == '/') name.pop_back();
  name = name.substr(name.rfind('/') + 1);
  if (absl::EndsWithIgnoreCase(name, ".gguf")) name.resize(name.size() - 5);
  return {.id = MakeId(name), .path = text};
}

absl::Status CheckConfig(const ServerConfig& config) {
  if (config.models.empty() && config.model_root.empty()) {
    return absl::InvalidArgumentError(
        "no model: give --model with a Hugging Face folder or a GGUF file, or --model_root for models that come later");
  }
  std::error_code error;
  if (!config.model_root.empty() && !std::filesystem::is_directory(config.model_root, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--model_root ", config.model_root, " is not a folder"));
  }
  std::set<std::string> ids;
  for (const std::string& text : config.models) {
    const ModelSource source = ParseModelSource(text);
    if (source.path.empty()) return absl::InvalidArgumentError(absl::StrCat("--model ", text, " has no path"));
    if (!ids.insert(source.id).second) {
      return absl::InvalidArgumentError(absl::StrCat("two models have the id ", source.id, ": give --model id=path"));
    }
  }
  if (config.precision != "auto" && config.precision != "float32" && config.precision != "bfloat16" &&
      config.precision != "file") {
    return absl::InvalidArgumentError(
        absl::StrCat("--precision must be auto, float32, bfloat16 or file, is ", config.precision));
  }
  if (config.metrics_objectives < 1 || config.metrics_objectives > kMaxMetricsObjectives) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics_objectives must be 1 to ", kMaxMetricsObjectives, ", is ", config.metrics_objectives));
  }
  if (config.kv_cache_mib < 1) return absl::InvalidArgumentError("--kv_cache_mib must be at least 1");
  if (absl::Status status = CheckAddress(config.address, "--address", config.allow_insecure); !status.ok()) {
    return status;
  }
  if (config.metrics_address.empty()) return absl::OkStatus();
  return CheckAddress(config.metrics_address, "--metrics_address", config.allow_insecure);
}

}  // namespace trimtab
