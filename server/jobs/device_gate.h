// Lets interactive work go first on a device that jobs share with the engine. Made by the composition root, called by
// job workers at their checkpoints (JobManager::set_gate).
#ifndef TRIMTAB_SERVER_JOBS_DEVICE_GATE_H_
#define TRIMTAB_SERVER_JOBS_DEVICE_GATE_H_

#include <functional>
#include <map>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/base/clock.h"

namespace trimtab {

struct DeviceGateConfig {
  absl::Duration slice = absl::Milliseconds(50);     // of job work between two waits
  absl::Duration max_wait = absl::Milliseconds(20);  // for the engine to become idle
  absl::Duration look = absl::Milliseconds(2);       // between two looks at the engine while waiting
};

// After every `slice` of work a job waits until the engine is idle, at most `max_wait`. Under constant load a job thus
// keeps slice / (slice + max_wait) of its time, 71 % by default: the gate smooths, it does not starve. What jobs take
// from the processors is bounded by their idle scheduling priority; the gate is what a device without priorities has.
// The engine's state is looked at and not announced: a signal would cost the engine's loop more than a look costs a
// worker that waits anyway. Thread-safe.
class DeviceGate {
 public:
  // `engine_idle`: nothing is running or waiting; called from workers, must be cheap. `clock` must outlive the gate.
  DeviceGate(std::function<bool()> engine_idle, const DeviceGateConfig& config, const Clock& clock);

  // At a checkpoint of the calling worker's job.
  void Pass();

 private:
  const std::function<bool()> engine_idle_;
  const DeviceGateConfig config_;
  const Clock& clock_;
  absl::Mutex mutex_;
  // When each worker's slice began.
  std::map<std::thread::id, absl::Time> slices_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_JOBS_DEVICE_GATE_H_
