#include "models/weights/file_error.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/base/error.h"

namespace trimtab {
namespace {

constexpr size_t kShownBytes = 80;

absl::string_view ToAbsl(std::string_view text) { return absl::string_view(text.data(), text.size()); }

}  // namespace

absl::Status ModelFileError(std::string_view path, std::string_view message) {
  return ReasonError(absl::StatusCode::kInvalidArgument, kModelFileInvalid,
                     absl::StrCat(ToAbsl(path), ": ", ToAbsl(message)), {{"file", std::string(path)}});
}

std::string QuoteName(std::string_view name) {
  const bool is_long = name.size() > kShownBytes;
  return absl::StrCat("\"", absl::CHexEscape(ToAbsl(name.substr(0, kShownBytes))), is_long ? "...\"" : "\"");
}

}  // namespace trimtab
