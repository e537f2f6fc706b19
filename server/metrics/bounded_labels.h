// Keeps the number of values of a label bounded, and thus the number of series. Used by Metrics.
#ifndef TRIMTAB_SERVER_METRICS_BOUNDED_LABELS_H_
#define TRIMTAB_SERVER_METRICS_BOUNDED_LABELS_H_

#include <map>
#include <optional>
#include <string>

#include "absl/time/time.h"

namespace trimtab {

// What traffic without a place of its own is counted under.
inline constexpr char kOtherLabel[] = "__other__";

// The most recently used values, at most `limit`. A new value takes the place of the one that has been unused longest,
// provided that is at least `idle`: values in use do not push each other out all the time, which would make new series
// without end. Not thread-safe.
class BoundedLabels {
 public:
  BoundedLabels(int limit, absl::Duration idle) : limit_(limit), idle_(idle) {}

  // Notes that `value` is used at `now` and returns whether it has a place. `evicted`: the value that lost its place to
  // it.
  bool Use(const std::string& value, absl::Time now, std::optional<std::string>* evicted);
  // Whether it had a place.
  bool Remove(const std::string& value) { return last_use_.erase(value) > 0; }

 private:
  const size_t limit_;
  const absl::Duration idle_;
  std::map<std::string, absl::Time> last_use_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_METRICS_BOUNDED_LABELS_H_
