// Loads steering methods from shared objects outside this tree (steering/plugin.h, docs/plugins.md). Called once by the
// composition root, on the main thread, before anything is served.
#ifndef TRIMTAB_SERVER_METHOD_PLUGINS_H_
#define TRIMTAB_SERVER_METHOD_PLUGINS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "steering/method_registry.h"

namespace trimtab {

// Loads each of the files and lets it register its methods; what was loaded stays for the life of the process. A plugin
// is code that runs with all rights of this process. INVALID_ARGUMENT with a sentence that names the file: it is not
// there, not a shared object, not a plugin, for another version or built from other headers, registers a method that is
// there already, one of a name that no request can give, or none.
absl::Status LoadMethodPlugins(const std::vector<std::string>& paths, MethodRegistry& registry);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_METHOD_PLUGINS_H_
