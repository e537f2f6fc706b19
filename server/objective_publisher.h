// Brings what the registry holds to where requests look: after every durable change of an objective, and at start.
// Any thread that may block on the disk.
#ifndef TRIMTAB_SERVER_OBJECTIVE_PUBLISHER_H_
#define TRIMTAB_SERVER_OBJECTIVE_PUBLISHER_H_

#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/registry/registry.h"
#include "steering/vector_store.h"

namespace trimtab {

// Thread-safe: of two changes at once the later one is what stays published.
class ObjectivePublisher {
 public:
  // Both must outlive the publisher.
  ObjectivePublisher(Registry& registry, VectorStore& vectors) : registry_(registry), vectors_(vectors) {}

  // Puts the objective's present state into the store, or removes it when it is gone. UNAVAILABLE when the registry
  // fails: then the store keeps what it had.
  absl::Status Publish(std::string_view objective) ABSL_LOCKS_EXCLUDED(mutex_);
  // All objectives of a model (models/{m}).
  absl::Status PublishAll(std::string_view model) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Status PublishRecord(const ObjectiveRecord& record) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Registry& registry_;
  VectorStore& vectors_;
  absl::Mutex mutex_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_OBJECTIVE_PUBLISHER_H_
