#include "steering/method_registry.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/error.h"

namespace trimtab {

absl::Status MethodRegistry::Register(MethodInfo info, Factory factory) {
  std::string id = info.id;
  const bool inserted = methods_.try_emplace(id, Entry{std::move(info), std::move(factory)}).second;
  if (!inserted) return absl::AlreadyExistsError(absl::StrCat("steering method \"", id, "\" is registered twice"));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<SteeringMethod>> MethodRegistry::Create(std::string_view id,
                                                                       const google::protobuf::Any* config) const {
  const auto it = methods_.find(id);
  if (it == methods_.end()) {
    const std::string known =
        absl::StrJoin(methods_, ", ", [](std::string* out, const auto& entry) { absl::StrAppend(out, entry.first); });
    return ReasonError(absl::StatusCode::kInvalidArgument, kMethodUnknown,
                       absl::StrCat("unknown steering method, this server has: ", known),
                       {{"method", std::string(id)}, {"known", known}});
  }
  return it->second.factory(config);
}

const MethodInfo* MethodRegistry::Find(std::string_view id) const {
  const auto it = methods_.find(id);
  return it == methods_.end() ? nullptr : &it->second.info;
}

std::vector<MethodInfo> MethodRegistry::List() const {
  std::vector<MethodInfo> all;
  for (const auto& [id, entry] : methods_) all.push_back(entry.info);
  return all;
}

}  // namespace trimtab
