#include "server/rpc/model_directory.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/base/error.h"
#include "server/base/resource_name.h"

namespace trimtab {
namespace {

constexpr absl::Duration kTryAgain = absl::Seconds(2);

const char* Explain(v1::Model::State state) {
  switch (state) {
    case v1::Model::STATE_LOADING:
      return "is being loaded";
    case v1::Model::STATE_UNLOADING:
      return "is being unloaded";
    case v1::Model::STATE_FAILED:
      return "could not be loaded";
    default:
      return "takes no requests";
  }
}

}  // namespace

std::string StateName(v1::Model::State state) {
  return std::string(absl::StripPrefix(v1::Model::State_Name(state), "STATE_"));
}

absl::Status ModelNotReadyError(const v1::Model& model) {
  absl::Status status = ReasonError(absl::StatusCode::kUnavailable, kModelNotReady,
                                    absl::StrCat("model \"", model.name(), "\" ", Explain(model.state())),
                                    {{"model", model.name()}, {"state", StateName(model.state())}});
  if (model.state() == v1::Model::STATE_LOADING) {
    ErrorDetail detail = GetErrorDetail(status);
    detail.retry_after = kTryAgain;
    SetErrorDetail(status, detail);
  }
  return status;
}

void ModelDirectory::Put(const std::string& id, Entry entry) {
  absl::MutexLock lock(&mutex_);
  auto changed = std::make_shared<Entries>(*entries_);
  (*changed)[id] = std::move(entry);
  entries_ = std::move(changed);
}

void ModelDirectory::Add(std::shared_ptr<ServedModel> model) {
  const std::string id = model->id();
  Put(id, {.model = std::move(model)});
}

void ModelDirectory::Announce(v1::Model description) {
  const std::string id = ParseModelName(description.name()).value_or("");
  Put(id, {.description = std::move(description)});
}

void ModelDirectory::Remove(std::string_view id) {
  absl::MutexLock lock(&mutex_);
  auto changed = std::make_shared<Entries>(*entries_);
  changed->erase(std::string(id));
  entries_ = std::move(changed);
}

std::shared_ptr<const ModelDirectory::Entries> ModelDirectory::snapshot() const {
  absl::MutexLock lock(&mutex_);
  return entries_;
}

absl::StatusOr<std::shared_ptr<ServedModel>> ModelDirectory::Find(std::string_view id) const {
  const std::shared_ptr<const Entries> entries = snapshot();
  const auto found = entries->find(id);
  if (found == entries->end()) return NotFoundError(kModelNotFound, "model", ModelName(id));
  if (found->second.model == nullptr) return ModelNotReadyError(found->second.description);
  return found->second.model;
}

absl::StatusOr<v1::Model> ModelDirectory::Describe(std::string_view id) const {
  const std::shared_ptr<const Entries> entries = snapshot();
  const auto found = entries->find(id);
  if (found == entries->end()) return NotFoundError(kModelNotFound, "model", ModelName(id));
  return found->second.Describe();
}

}  // namespace trimtab
