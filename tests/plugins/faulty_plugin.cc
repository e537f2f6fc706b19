// A plugin with one fault, which the build names.
#include <stdexcept>

#include "steering/plugin.h"

namespace {

[[maybe_unused]] absl::Status RegisterAs(trimtab::MethodRegistry& registry, const char* id) {
  return registry.Register({.id = id}, [](const google::protobuf::Any*) {
    return absl::StatusOr<std::unique_ptr<trimtab::SteeringMethod>>(absl::UnimplementedError("a test's"));
  });
}

}  // namespace

#if defined(FAULT_MISSING_SYMBOL)
namespace trimtab {
// Was there in another version of the server, as it were.
absl::Status RegisterInAnotherVersion(MethodRegistry& registry);
}  // namespace trimtab
TRIMTAB_PLUGIN("faulty", trimtab::RegisterInAnotherVersion)
#elif defined(FAULT_TWICE)
// A method that the server has.
TRIMTAB_PLUGIN("faulty", [](trimtab::MethodRegistry& registry) { return RegisterAs(registry, "grains"); })
#elif defined(FAULT_BAD_ID)
TRIMTAB_PLUGIN("faulty", [](trimtab::MethodRegistry& registry) { return RegisterAs(registry, "a/b"); })
#elif defined(FAULT_NOTHING)
TRIMTAB_PLUGIN("faulty", [](trimtab::MethodRegistry&) { return absl::OkStatus(); })
#elif defined(FAULT_THROWS)
TRIMTAB_PLUGIN("faulty", [](trimtab::MethodRegistry&) -> absl::Status { throw std::runtime_error("no luck"); })
#elif defined(FAULT_NULL)
extern "C" const TrimtabPlugin* trimtab_plugin_v1() { return nullptr; }
#elif defined(FAULT_OTHER_VERSION)
extern "C" const TrimtabPlugin* trimtab_plugin_v1() {
  static const TrimtabPlugin plugin = {2, TRIMTAB_PLUGIN_BUILD, "faulty", nullptr};
  return &plugin;
}
#elif defined(FAULT_OTHER_BUILD)
extern "C" const TrimtabPlugin* trimtab_plugin_v1() {
  static const TrimtabPlugin plugin = {trimtab::kPluginVersion, "0123456789abcdef-c++201402", "faulty", nullptr};
  return &plugin;
}
#endif
