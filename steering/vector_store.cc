#include "steering/vector_store.h"

#include <utility>

namespace trimtab {

void VectorStore::Put(std::shared_ptr<const ServedObjective> objective) {
  absl::MutexLock lock(&mutex_);
  objectives_.insert_or_assign(objective->name, std::move(objective));
}

void VectorStore::Remove(std::string_view name) {
  absl::MutexLock lock(&mutex_);
  if (const auto it = objectives_.find(name); it != objectives_.end()) objectives_.erase(it);
}

std::shared_ptr<const ServedObjective> VectorStore::Find(std::string_view name) const {
  absl::MutexLock lock(&mutex_);
  const auto it = objectives_.find(name);
  return it == objectives_.end() ? nullptr : it->second;
}

std::vector<std::shared_ptr<const ServedObjective>> VectorStore::List() const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<const ServedObjective>> all;
  all.reserve(objectives_.size());
  for (const auto& [name, objective] : objectives_) all.push_back(objective);
  return all;
}

}  // namespace trimtab
