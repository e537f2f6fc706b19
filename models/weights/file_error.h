// Errors about model files. Files are untrusted, so what they contain is escaped and shortened before it is shown.
// Called by the readers of this folder and by the model loader. Any thread.
#ifndef TRIMTAB_MODELS_WEIGHTS_FILE_ERROR_H_
#define TRIMTAB_MODELS_WEIGHTS_FILE_ERROR_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace trimtab {

// INVALID_ARGUMENT, MODEL_FILE_INVALID, "PATH: MESSAGE"; the path is also in the metadata as "file".
absl::Status ModelFileError(std::string_view path, std::string_view message);

// A name from a file in double quotes, escaped, at most 80 bytes of it.
std::string QuoteName(std::string_view name);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_WEIGHTS_FILE_ERROR_H_
