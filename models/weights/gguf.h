// Reader of GGUF files (versions 2 and 3): typed metadata and the table of tensors. No torch. Called by the model
// loader and by the tokenizer, which reads its vocabulary from the metadata. Const after opening, any thread.
//
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Llama-architecture files hold the rows of attn_q
// and attn_k permuted for interleaved rotary embedding; this reader gives them as they are, the model loader
// un-permutes.
#ifndef TRIMTAB_MODELS_WEIGHTS_GGUF_H_
#define TRIMTAB_MODELS_WEIGHTS_GGUF_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/weights/raw_tensor.h"

namespace trimtab {

// Files are untrusted. Opening checks everything that later reads rely on: every count against the bytes that are left
// before memory is reserved for it, every product and sum for overflow, every range against the file's size, and that
// no two tensors share bytes, keys or names. Every error is INVALID_ARGUMENT (MODEL_FILE_INVALID) and names the key or
// tensor, unless stated otherwise. Strings returned are views into the file and live as long as this object; they need
// not be UTF-8.
class GgufFile {
 public:
  // Also the errors of MappedFile::Open.
  static absl::StatusOr<std::shared_ptr<const GgufFile>> Open(const std::string& path);

  // Reads a file that is in memory already. `bytes` must stay valid while `owner` lives; `path` is for messages.
  static absl::StatusOr<std::shared_ptr<const GgufFile>> Parse(absl::Span<const uint8_t> bytes,
                                                               std::shared_ptr<const void> owner, std::string path);

  const std::string& path() const { return path_; }
  uint32_t version() const { return version_; }
  const std::vector<RawTensor>& tensors() const { return tensors_; }  // in the file's order

  bool Has(std::string_view key) const;
  std::vector<std::string_view> keys() const;  // sorted

  // The value of `key`. NOT_FOUND (MODEL_FILE_INVALID) when the file lacks it; an error when its type is another one or
  // its value does not fit. GetInt reads every integer type, GetFloat every number.
  absl::StatusOr<std::string_view> GetString(std::string_view key) const;
  absl::StatusOr<int64_t> GetInt(std::string_view key) const;
  absl::StatusOr<double> GetFloat(std::string_view key) const;
  absl::StatusOr<bool> GetBool(std::string_view key) const;

  // The same, but `fallback` when the file lacks the key.
  absl::StatusOr<std::string_view> GetStringOr(std::string_view key, std::string_view fallback) const;
  absl::StatusOr<int64_t> GetIntOr(std::string_view key, int64_t fallback) const;
  absl::StatusOr<double> GetFloatOr(std::string_view key, double fallback) const;
  absl::StatusOr<bool> GetBoolOr(std::string_view key, bool fallback) const;

  // Arrays. GetInts also reads booleans, as 0 and 1.
  absl::StatusOr<std::vector<std::string_view>> GetStrings(std::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> GetInts(std::string_view key) const;
  absl::StatusOr<std::vector<float>> GetFloats(std::string_view key) const;

 private:
  friend class GgufParser;

  struct Value {
    uint32_t type = 0;          // of the format; an array's element type is in element_type
    uint32_t element_type = 0;  // arrays only
    uint64_t count = 1;         // elements
    const uint8_t* data = nullptr;
  };

  GgufFile(std::shared_ptr<const void> owner, std::string path);
  absl::StatusOr<const Value*> Lookup(std::string_view key) const;
  absl::StatusOr<const Value*> LookupArray(std::string_view key) const;
  absl::Status TypeError(std::string_view key, std::string_view expected, const Value& value) const;

  const std::shared_ptr<const void> owner_;
  const std::string path_;
  uint32_t version_ = 0;
  absl::flat_hash_map<std::string_view, Value> metadata_;  // keys are views into the file
  std::vector<RawTensor> tensors_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_WEIGHTS_GGUF_H_
