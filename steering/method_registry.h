// The steering methods by name. Filled once at start (builtin_methods.cc), then const. Any thread.
#ifndef TRIMTAB_STEERING_METHOD_REGISTRY_H_
#define TRIMTAB_STEERING_METHOD_REGISTRY_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "steering/steering_method.h"

namespace google::protobuf {
class Any;
}  // namespace google::protobuf

namespace trimtab {

struct MethodInfo {
  std::string id;  // "grains"
  std::string display_name;
  std::string description;     // one or two sentences
  std::string config_type;     // full name of the config message, "trimtab.methods.v1.GrainsConfig"
  std::string default_config;  // serialized config message with every default filled in
  std::vector<std::string> sites;
};

class MethodRegistry {
 public:
  // Makes a method from its config (null: defaults). Errors: INVALID_ARGUMENT with every violation,
  // METHOD_CONFIG_MISMATCH when the Any holds another type.
  using Factory = std::function<absl::StatusOr<std::unique_ptr<SteeringMethod>>(const google::protobuf::Any* config)>;

  // ALREADY_EXISTS for a second method of the same id.
  absl::Status Register(MethodInfo info, Factory factory);
  // INVALID_ARGUMENT METHOD_UNKNOWN names the known ones.
  absl::StatusOr<std::unique_ptr<SteeringMethod>> Create(std::string_view id,
                                                         const google::protobuf::Any* config) const;
  const MethodInfo* Find(std::string_view id) const;
  std::vector<MethodInfo> List() const;  // by id

 private:
  struct Entry {
    MethodInfo info;
    Factory factory;
  };
  std::map<std::string, Entry, std::less<>> methods_;
};

// Registers the methods of this tree.
absl::Status RegisterBuiltinMethods(MethodRegistry& registry);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHOD_REGISTRY_H_
