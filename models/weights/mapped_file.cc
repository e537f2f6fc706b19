#include "models/weights/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "models/weights/file_error.h"
#include "server/base/error.h"

namespace trimtab {
namespace {

absl::Status SystemError(const std::string& path, std::string_view doing, int error) {
  absl::Status status = absl::ErrnoToStatus(error, absl::StrCat(path, ": could not be ", doing.data()));
  SetErrorDetail(status, ErrorDetail{.reason = std::string(kModelFileInvalid), .metadata = {{"file", path}}});
  return status;
}

}  // namespace

MappedFile::MappedFile(std::string path, const uint8_t* data, size_t size)
    : path_(std::move(path)), data_(data), size_(size) {}

MappedFile::~MappedFile() { munmap(const_cast<uint8_t*>(data_), size_); }

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path) {
  // O_NONBLOCK: opening a named pipe must not wait for a writer. It does not matter to a regular file.
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return SystemError(path, "opened", errno);
  struct stat status;
  if (fstat(descriptor, &status) != 0) {
    const int error = errno;
    close(descriptor);
    return SystemError(path, "examined", error);
  }
  if (!S_ISREG(status.st_mode) || status.st_size <= 0) {
    close(descriptor);
    return ModelFileError(path, S_ISREG(status.st_mode) ? "the file is empty" : "not a regular file");
  }
  const size_t size = static_cast<size_t>(status.st_size);
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  const int error = errno;
  close(descriptor);
  if (data == MAP_FAILED) return SystemError(path, "mapped into memory", error);
  return std::shared_ptr<const MappedFile>(new MappedFile(path, static_cast<const uint8_t*>(data), size));
}

}  // namespace trimtab
