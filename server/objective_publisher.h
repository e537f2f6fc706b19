// Brings what the registry holds to where requests look: after every durable change of an objective, and at start.
// Any thread that may block on the disk.
#ifndef TRIMTAB_SERVER_OBJECTIVE_PUBLISHER_H_
#define TRIMTAB_SERVER_OBJECTIVE_PUBLISHER_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/registry/registry.h"
#include "steering/steering_vector.h"
#include "steering/vector_store.h"

namespace trimtab {

// Thread-safe: of two changes at once the later one is what stays published.
class ObjectivePublisher {
 public:
  // Told about every change that was published: the objective (null: it is gone) and the measured effect of its active
  // revision, nats per token (0 without one).
  using Observer = std::function<void(const std::string& name, const ServedObjective* objective, double effect)>;

  // `registry` and `vectors` must outlive the publisher. `observer` may be null.
  ObjectivePublisher(Registry& registry, VectorStore& vectors, Observer observer = nullptr)
      : registry_(registry), vectors_(vectors), observer_(std::move(observer)) {}

  // Puts the objective's present state into the store, or removes it when it is gone. UNAVAILABLE when the registry
  // fails: then the store keeps what it had.
  absl::Status Publish(std::string_view objective) ABSL_LOCKS_EXCLUDED(mutex_);
  // All objectives of a model (models/{m}).
  absl::Status PublishAll(std::string_view model) ABSL_LOCKS_EXCLUDED(mutex_);
  // Takes all objectives of a model out of the store: the model is served no more. The registry keeps them.
  void Withdraw(std::string_view model) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::StatusOr<std::shared_ptr<const SteeringVector>> LoadVector(const ServedObjective* before,
                                                                   const RevisionRecord& listed);
  absl::Status PublishRecord(const ObjectiveRecord& record) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Registry& registry_;
  VectorStore& vectors_;
  const Observer observer_;
  absl::Mutex mutex_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_OBJECTIVE_PUBLISHER_H_
