// The door of steering methods that are built outside this tree: a shared object that the server loads at its start
// (--method_plugin). It includes this header and says once, in one source:
//
//   absl::Status RegisterMethods(trimtab::MethodRegistry& registry) { return registry.Register(...); }
//   TRIMTAB_PLUGIN("my-plugin 1.0", RegisterMethods)
//
// The object links nothing of Trimtab: the server brings all of it. So both must be built from the same headers, with a
// compiler of the same ABI and the same libraries; TRIMTAB_PLUGIN_BUILD tells whether they are, and the server loads
// nothing else. docs/plugins.md walks through one.
#ifndef TRIMTAB_STEERING_PLUGIN_H_
#define TRIMTAB_STEERING_PLUGIN_H_

#include <google/protobuf/stubs/common.h>

#include <cstdint>

#include "absl/status/status.h"
#include "steering/method_registry.h"
#include "steering/plugin_interface_id.h"  // TRIMTAB_PLUGIN_INTERFACE: a hash of the headers that plugins see

#define TRIMTAB_PLUGIN_TEXT_(x) #x
#define TRIMTAB_PLUGIN_TEXT(x) TRIMTAB_PLUGIN_TEXT_(x)
#define TRIMTAB_PLUGIN_BUILD                                                                   \
  TRIMTAB_PLUGIN_INTERFACE "-c++" TRIMTAB_PLUGIN_TEXT(__cplusplus) "-abi" TRIMTAB_PLUGIN_TEXT( \
      __GXX_ABI_VERSION) "-string" TRIMTAB_PLUGIN_TEXT(_GLIBCXX_USE_CXX11_ABI) "-protobuf" TRIMTAB_PLUGIN_TEXT(GOOGLE_PROTOBUF_VERSION)

extern "C" {

// What the entry point returns, constant for the life of the process. `version` and `build` stay first and mean the
// same in every version.
struct TrimtabPlugin {
  uint32_t version;   // of this struct: 1
  const char* build;  // TRIMTAB_PLUGIN_BUILD as the plugin was built
  const char* name;   // with its version, for people
  // Registers the plugin's methods; called once, on the main thread, before anything is served.
  absl::Status (*register_methods)(trimtab::MethodRegistry& registry);
};

}  // extern "C"

namespace trimtab {
inline constexpr uint32_t kPluginVersion = 1;
}  // namespace trimtab

// Defines the entry point, trimtab_plugin_v1.
#define TRIMTAB_PLUGIN(name, register_methods)                                                                   \
  extern "C" __attribute__((visibility("default"))) const TrimtabPlugin* trimtab_plugin_v1() {                   \
    static const TrimtabPlugin plugin = {trimtab::kPluginVersion, TRIMTAB_PLUGIN_BUILD, name, register_methods}; \
    return &plugin;                                                                                              \
  }

#endif  // TRIMTAB_STEERING_PLUGIN_H_
