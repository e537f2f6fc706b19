#include "models/model_registry.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "models/weights/file_error.h"

namespace trimtab {

std::vector<const Architecture*> Architectures() { return {&kLlama, &kMistral, &kQwen2, &kGemma3, &kGemma3Multimodal}; }

absl::StatusOr<const Architecture*> FindArchitecture(CheckpointFormat format, std::string_view name) {
  std::string known;
  for (const Architecture* architecture : Architectures()) {
    const std::string_view own = format == CheckpointFormat::kGguf ? architecture->gguf : architecture->hugging_face;
    if (own.empty()) continue;
    if (own == name) return architecture;
    absl::StrAppend(&known, known.empty() ? "" : ", ", absl::string_view(own.data(), own.size()));
  }
  return absl::UnimplementedError(
      absl::StrCat("architecture ", QuoteName(name), " is not supported; supported: ", known));
}

}  // namespace trimtab
