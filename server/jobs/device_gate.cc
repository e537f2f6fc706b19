#include "server/jobs/device_gate.h"

#include <utility>

#include "absl/time/clock.h"

namespace trimtab {

DeviceGate::DeviceGate(std::function<bool()> engine_idle, const DeviceGateConfig& config, const Clock& clock)
    : engine_idle_(std::move(engine_idle)), config_(config), clock_(clock) {}

void DeviceGate::Pass() {
  const std::thread::id worker = std::this_thread::get_id();
  const absl::Time now = clock_.Now();
  {
    absl::MutexLock lock(&mutex_);
    const auto [slice, is_new] = slices_.try_emplace(worker, now);
    if (is_new || now - slice->second < config_.slice) return;
  }
  // Counted in looks, so that the wait is bounded whatever the clock does.
  for (absl::Duration waited; waited < config_.max_wait && !engine_idle_(); waited += config_.look) {
    absl::SleepFor(config_.look);
  }
  absl::MutexLock lock(&mutex_);
  slices_[worker] = clock_.Now();
}

}  // namespace trimtab
