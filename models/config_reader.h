// Reads a model's configuration, which is untrusted: every value is checked where it is read. Used by the files of the
// architectures. Any thread.
#ifndef TRIMTAB_MODELS_CONFIG_READER_H_
#define TRIMTAB_MODELS_CONFIG_READER_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/model_spec.h"
#include "models/weights/gguf.h"

namespace trimtab {

// Reads keys of one JSON object; a null is a missing key. The first fault stays, and what is read after it does not
// matter: check status() at the end. `config` and `path` (for messages) must outlive it.
class ConfigReader {
 public:
  ConfigReader(const nlohmann::json& config, const std::string& path) : config_(config), path_(path) {}

  bool Has(const char* key) const { return Find(key) != nullptr; }
  int64_t Integer(const char* key, int64_t low, int64_t high, std::optional<int64_t> missing = std::nullopt);
  double Number(const char* key, double low, double high, std::optional<double> missing = std::nullopt);
  bool Flag(const char* key, bool missing);
  std::string Text(const char* key, const std::string& missing);

  // How all decoders' configs name them.
  Activation ReadActivation(const char* key, const std::string& missing);
  // The rotary embedding: rope_theta with rope_scaling, or rope_parameters (transformers 5), which hold both.
  RopeSpec ReadRope();
  // Whether each of `count` layers slides a window, of "layer_types", or as `missing` says when there are none.
  std::vector<bool> ReadSlidingLayers(int64_t count, const std::vector<bool>& missing);
  // Sizes, context, epsilon and tied embeddings. The layers are the caller's: `num_layers` of them.
  ModelSpec ReadSizes(std::string architecture, int64_t& num_layers);

  // INVALID_ARGUMENT and UNIMPLEMENTED.
  void Fail(std::string_view key, std::string_view what);
  void Refuse(std::string_view what);
  void Adopt(const absl::Status& status) { status_.Update(status); }  // what another reader has met
  const absl::Status& status() const { return status_; }
  const std::string& path() const { return path_; }

 private:
  const nlohmann::json* Find(const char* key) const;

  const nlohmann::json& config_;
  const std::string& path_;
  absl::Status status_;
};

// `spec` if the reader has met no fault and the sizes fit together.
absl::StatusOr<ModelSpec> Finish(const ConfigReader& reader, ModelSpec spec);

// GGUF metadata under the keys of a Hugging Face config, so that one place checks both: sizes, epsilon, rope, tied
// embeddings, and the window. `architecture` is the prefix of the keys.
absl::StatusOr<nlohmann::json> ConfigFromGguf(const GgufFile& file, const std::string& architecture);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_CONFIG_READER_H_
