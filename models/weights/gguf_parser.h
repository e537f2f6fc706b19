// Turns the bytes of a GGUF file into a GgufFile. Internal to gguf.cc; one object per file, one thread.
#ifndef TRIMTAB_MODELS_WEIGHTS_GGUF_PARSER_H_
#define TRIMTAB_MODELS_WEIGHTS_GGUF_PARSER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "models/weights/gguf.h"

namespace trimtab {

class GgufParser {
 public:
  // Fills `file`; both must outlive the parser.
  GgufParser(absl::Span<const uint8_t> bytes, GgufFile* file) : bytes_(bytes), file_(*file) {}

  absl::Status Parse();

 private:
  using Value = GgufFile::Value;

  uint64_t remaining() const { return bytes_.size() - position_; }
  // Each advances past what it read, or returns false when the file is too short for it.
  template <typename T>
  [[nodiscard]] bool Read(T* value);
  [[nodiscard]] bool ReadString(std::string_view* text);
  [[nodiscard]] bool Skip(uint64_t count, uint64_t size);

  absl::Status Error(std::string_view message) const;
  absl::Status ParseHeader();
  absl::Status ParseMetadata();
  absl::Status ParseValue(const std::string& what, Value* value);
  absl::Status ParseArray(const std::string& what, Value* value);
  absl::Status ParseTensors();
  absl::Status ParseShape(const std::string& what, std::vector<int64_t>* shape);
  absl::Status MeasureTensor(const std::string& what, uint32_t type, RawTensor* tensor) const;
  absl::Status PlaceTensors(const std::vector<uint64_t>& offsets);

  const absl::Span<const uint8_t> bytes_;
  GgufFile& file_;
  uint64_t position_ = 0;
  uint64_t tensor_count_ = 0;
  uint64_t metadata_count_ = 0;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_WEIGHTS_GGUF_PARSER_H_
