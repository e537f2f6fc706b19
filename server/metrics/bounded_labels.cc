#include "server/metrics/bounded_labels.h"

#include <algorithm>

namespace trimtab {

bool BoundedLabels::Use(const std::string& value, absl::Time now, std::optional<std::string>* evicted) {
  evicted->reset();
  if (const auto found = last_use_.find(value); found != last_use_.end()) {
    found->second = now;
    return true;
  }
  if (last_use_.size() >= limit_) {
    const auto oldest = std::min_element(last_use_.begin(), last_use_.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
    if (oldest == last_use_.end() || now - oldest->second < idle_) return false;
    *evicted = oldest->first;
    last_use_.erase(oldest);
  }
  last_use_.emplace(value, now);
  return true;
}

}  // namespace trimtab
