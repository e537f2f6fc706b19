// Reader of safetensors checkpoints, in one file or in shards. No torch. Called by the model loader. Const after
// opening, any thread.
//
// Format: https://github.com/huggingface/safetensors#format. Eight bytes of header length (little-endian), a JSON
// header, then the bytes of the tensors without a hole.
#ifndef TRIMTAB_MODELS_WEIGHTS_SAFETENSORS_H_
#define TRIMTAB_MODELS_WEIGHTS_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/weights/mapped_file.h"
#include "models/weights/raw_tensor.h"

namespace trimtab {

// The tensors of one file in memory, by offset; `path` is for messages. The file is untrusted: the header is checked as
// it is read, offsets must follow each other without overlap or hole and end at the file's end, and a tensor's shape
// times its type's size must be its range. Types other than F32, F16 and BF16 are listed without an ElementType.
// Errors: INVALID_ARGUMENT (MODEL_FILE_INVALID), naming the tensor. The result borrows from `bytes`.
absl::StatusOr<std::vector<RawTensor>> ParseSafetensors(absl::Span<const uint8_t> bytes, const std::string& path);

// The weight map of a model.safetensors.index.json: tensor name -> file name, a plain name that cannot leave the
// folder. Errors: INVALID_ARGUMENT (MODEL_FILE_INVALID).
absl::StatusOr<std::map<std::string, std::string>> ParseSafetensorsIndex(std::string_view json,
                                                                         const std::string& path);

class SafetensorsCheckpoint {
 public:
  // `path` is a .safetensors file, an index of shards (.json), or a folder that holds model.safetensors.index.json or
  // model.safetensors. With an index, exactly the tensors that it lists are there, each from the shard that it names.
  // Errors: those of MappedFile::Open and of the functions above; a shard or tensor that the index names and that does
  // not exist is INVALID_ARGUMENT (MODEL_FILE_INVALID).
  static absl::StatusOr<std::shared_ptr<const SafetensorsCheckpoint>> Open(const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<RawTensor>& tensors() const { return tensors_; }

 private:
  explicit SafetensorsCheckpoint(std::string path);
  absl::Status AddFile(const std::string& path);
  absl::Status AddShards(const std::string& index_path);

  const std::string path_;
  std::vector<std::shared_ptr<const MappedFile>> files_;
  std::vector<RawTensor> tensors_;  // borrow from files_
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_WEIGHTS_SAFETENSORS_H_
