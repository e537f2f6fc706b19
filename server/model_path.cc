#include "server/model_path.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "server/base/error.h"

namespace trimtab {
namespace {

namespace fs = std::filesystem;

absl::Status PathError(std::string description) { return FieldError({{"path", std::move(description)}}); }

// Whether `path` is below `root`; both without links. The root itself is not.
bool IsBelow(const fs::path& path, const fs::path& root) {
  const auto [end, at] = std::mismatch(root.begin(), root.end(), path.begin(), path.end());
  return end == root.end() && at != path.end();
}

}  // namespace

absl::StatusOr<ModelPath> ResolveModelPath(const std::string& root, const std::string& path) {
  if (root.empty()) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, kLoadingDisabled,
                       "this server takes no models at run time: start it with --model_root");
  }
  std::error_code error;
  const fs::path real_root = fs::canonical(root, error);
  if (error) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, kLoadingDisabled,
                       "the server's --model_root does not exist");
  }
  const fs::path asked = fs::path(path).lexically_normal();
  const bool climbs = std::find(asked.begin(), asked.end(), "..") != asked.end();
  const fs::path found = fs::canonical(asked.is_absolute() ? asked : real_root / asked, error);
  if (climbs || error || !IsBelow(found, real_root)) {
    return PathError("must name a GGUF file or a Hugging Face folder below --model_root");
  }
  if (fs::is_directory(found, error)) {
    for (fs::directory_iterator entry(found, error), end; !error && entry != end; entry.increment(error)) {
      const fs::path target = fs::canonical(entry->path(), error);
      if (error || !IsBelow(target, real_root)) {
        return PathError("the folder holds a link that leads out of --model_root or to nothing");
      }
    }
  } else if (!fs::is_regular_file(found, error)) {
    return PathError("must name a GGUF file or a Hugging Face folder below --model_root");
  }
  const fs::path relative = asked.is_absolute() ? found.lexically_relative(real_root) : asked;
  return ModelPath{.absolute = found.string(), .relative = relative.string()};
}

}  // namespace trimtab
