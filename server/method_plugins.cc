#include "server/method_plugins.h"

#include <dlfcn.h>

#include <exception>
#include <filesystem>
#include <set>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/log.h"
#include "server/base/resource_name.h"
#include "server/base/status_macros.h"
#include "steering/plugin.h"

namespace trimtab {
namespace {

constexpr char kEntryPoint[] = "trimtab_plugin_v1";
using EntryPoint = const TrimtabPlugin* (*)();

absl::Status Error(const std::string& path, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("--method_plugin ", path, ": ", std::string(what)));
}

std::set<std::string> Ids(const MethodRegistry& registry) {
  std::set<std::string> ids;
  for (const MethodInfo& method : registry.List()) ids.insert(method.id);
  return ids;
}

absl::StatusOr<const TrimtabPlugin*> Open(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return Error(path, "there is no such file");
  // A path without a slash would be looked for among the system's libraries.
  const std::string absolute = std::filesystem::absolute(path, error).string();
  void* const library = dlopen(absolute.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const reason = dlerror();
    return Error(path, absl::StrCat("cannot be loaded: ", reason == nullptr ? "unknown" : reason,
                                    " (if a symbol is missing, build it again from this server's headers)"));
  }
  const auto entry = reinterpret_cast<EntryPoint>(dlsym(library, kEntryPoint));
  if (entry == nullptr) {
    dlclose(library);
    return Error(path, absl::StrCat("is no plugin: it has no function ", kEntryPoint));
  }
  const TrimtabPlugin* const plugin = entry();
  if (plugin == nullptr) return Error(path, absl::StrCat("is no plugin: ", kEntryPoint, " returned nothing"));
  if (plugin->version != kPluginVersion) {
    return Error(path, absl::StrCat("is for version ", plugin->version, " of the plugin interface, this server has ",
                                    kPluginVersion));
  }
  if (plugin->build == nullptr || std::string_view(plugin->build) != TRIMTAB_PLUGIN_BUILD) {
    return Error(
        path, absl::StrCat("was built as ", plugin->build == nullptr ? "nothing" : plugin->build, ", this server as ",
                           TRIMTAB_PLUGIN_BUILD, ": build it again from this server's headers"));
  }
  if (plugin->name == nullptr || plugin->register_methods == nullptr) {
    return Error(path, "is no plugin: it has no name or registers nothing");
  }
  return plugin;
}

absl::Status Register(const TrimtabPlugin& plugin, MethodRegistry& registry) {
  try {
    return plugin.register_methods(registry);
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("it threw: ", error.what()));
  }
}

absl::Status LoadPlugin(const std::string& path, MethodRegistry& registry) {
  TRIMTAB_ASSIGN_OR_RETURN(const TrimtabPlugin* const plugin, Open(path));
  const std::set<std::string> before = Ids(registry);
  if (const absl::Status status = Register(*plugin, registry); !status.ok()) {
    return Error(path, absl::StrCat("cannot register its methods: ", std::string(status.message())));
  }
  std::vector<std::string> added;
  for (const std::string& id : Ids(registry)) {
    if (before.contains(id)) continue;
    if (!ParseSteeringMethodName(SteeringMethodName(id))) {
      return Error(path, absl::StrCat("registers a method of the name \"", id, "\", which no request can give"));
    }
    added.push_back(id);
  }
  if (added.empty()) return Error(path, "registers no method");
  LogInfo("plugin loaded", {{"path", path}, {"name", plugin->name}, {"methods", absl::StrJoin(added, ", ")}});
  return absl::OkStatus();
}

}  // namespace

absl::Status LoadMethodPlugins(const std::vector<std::string>& paths, MethodRegistry& registry) {
  for (const std::string& path : paths) TRIMTAB_RETURN_IF_ERROR(LoadPlugin(path, registry));
  return absl::OkStatus();
}

}  // namespace trimtab
