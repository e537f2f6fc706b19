// Streaming readers of the two JSON documents of the safetensors format. They hold no tree, so that a hostile document
// cannot take much more memory than its own size. Internal to safetensors.cc; one thread.
#ifndef TRIMTAB_MODELS_WEIGHTS_SAFETENSORS_JSON_H_
#define TRIMTAB_MODELS_WEIGHTS_SAFETENSORS_JSON_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace trimtab {

// A tensor's entry in a header. All fields are present and `begin` ≤ `end`; nothing else is checked.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;  // outermost first; no negative sizes
  uint64_t begin = 0;          // bytes from the end of the header
  uint64_t end = 0;
};

// Errors: the message alone, as INVALID_ARGUMENT; the caller adds the path.
absl::StatusOr<std::vector<SafetensorsEntry>> ReadSafetensorsHeader(std::string_view json);
absl::StatusOr<std::map<std::string, std::string>> ReadSafetensorsIndex(std::string_view json);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_WEIGHTS_SAFETENSORS_JSON_H_
