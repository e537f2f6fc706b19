// The methods of this tree, registered explicitly: one line each.
#include "steering/method_registry.h"
#include "steering/methods/grains.h"

namespace trimtab {

absl::Status RegisterBuiltinMethods(MethodRegistry& registry) {
  return registry.Register(GrainsMethod::Info(), &GrainsMethod::Create);
}

}  // namespace trimtab
