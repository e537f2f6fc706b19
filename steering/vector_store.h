// What serving knows of the objectives: names to immutable vectors. Written by the registry's side when a change is
// durable, read by requests as snapshots. Any thread.
#ifndef TRIMTAB_STEERING_VECTOR_STORE_H_
#define TRIMTAB_STEERING_VECTOR_STORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "steering/steering_vector.h"

namespace trimtab {

// One objective as requests see it. Immutable: a change puts a new one.
struct ServedObjective {
  enum class State { kCreating = 1, kActive = 2, kFailed = 3, kDisabled = 4 };  // values equal the API's State
  std::string name;                                                             // models/{m}/objectives/{o}
  State state = State::kCreating;
  int64_t active_revision = 0;  // 0 until the first fit ended
  std::map<int64_t, std::shared_ptr<const SteeringVector>> revisions;
  float default_strength = 0;  // the objective's own, else the active revision's
  float max_strength = 0;
};

class VectorStore {
 public:
  void Put(std::shared_ptr<const ServedObjective> objective) ABSL_LOCKS_EXCLUDED(mutex_);
  void Remove(std::string_view name) ABSL_LOCKS_EXCLUDED(mutex_);
  // Null when there is none.
  std::shared_ptr<const ServedObjective> Find(std::string_view name) const ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<std::shared_ptr<const ServedObjective>> List() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<const ServedObjective>, std::less<>> objectives_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_VECTOR_STORE_H_
