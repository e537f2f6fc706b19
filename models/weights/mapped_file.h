// A whole file mapped read-only into memory, for the readers of model files. Any thread after opening.
#ifndef TRIMTAB_MODELS_WEIGHTS_MAPPED_FILE_H_
#define TRIMTAB_MODELS_WEIGHTS_MAPPED_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace trimtab {

// The size is taken once, when the file is opened; a file that grows later is seen as it was. A file that somebody
// truncates while it is mapped ends the process with SIGBUS at the next read beyond its new end, as with every mapping:
// replace model files by renaming, never in place.
class MappedFile {
 public:
  // Errors: NOT_FOUND without such a file, PERMISSION_DENIED when it may not be read (both carry MODEL_FILE_INVALID);
  // INVALID_ARGUMENT (MODEL_FILE_INVALID) when it is empty or not a regular file.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::Span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, const uint8_t* data, size_t size);

  const std::string path_;
  const uint8_t* const data_;
  const size_t size_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_WEIGHTS_MAPPED_FILE_H_
