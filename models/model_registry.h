// The architectures that can be loaded, by the name that a checkpoint gives. To add one: a file like qwen2.cc, a line
// in architecture.h and one in model_registry.cc. Const; any thread.
#ifndef TRIMTAB_MODELS_MODEL_REGISTRY_H_
#define TRIMTAB_MODELS_MODEL_REGISTRY_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/architecture.h"

namespace trimtab {

// UNIMPLEMENTED names the architecture and those that are known.
absl::StatusOr<const Architecture*> FindArchitecture(CheckpointFormat format, std::string_view name);

// All of them.
std::vector<const Architecture*> Architectures();

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_MODEL_REGISTRY_H_
