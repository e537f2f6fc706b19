// Which files a client may name when it asks for a model: those below --model_root, without a way out of it. Blocks on
// the disk; any thread that may.
#ifndef TRIMTAB_SERVER_MODEL_PATH_H_
#define TRIMTAB_SERVER_MODEL_PATH_H_

#include <string>

#include "absl/status/statusor.h"

namespace trimtab {

struct ModelPath {
  std::string absolute;  // without links
  std::string relative;  // to the root, as the caller wrote it
};

// `path` (relative to `root`, or absolute) names a file or a folder below `root`, and no link on its way or in the
// folder leads out of `root`. FIELD_INVALID on "path" otherwise: the same whether a file outside exists or not.
// LOADING_DISABLED without a root.
absl::StatusOr<ModelPath> ResolveModelPath(const std::string& root, const std::string& path);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_MODEL_PATH_H_
