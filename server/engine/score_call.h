// One Engine::Score call: many background requests, one answer. The caller's thread waits, the engine's thread reports.
// No torch.
#ifndef TRIMTAB_SERVER_ENGINE_SCORE_CALL_H_
#define TRIMTAB_SERVER_ENGINE_SCORE_CALL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/request.h"
#include "steering/drift/scorer.h"

namespace trimtab {

// How many requests all Score calls of an engine may have in flight: a long list of items must not fill the queue.
class ScoreWindow {
 public:
  explicit ScoreWindow(int64_t size) : room_(size) {}
  void Enter() ABSL_LOCKS_EXCLUDED(mutex_);
  void Leave() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return room_ > 0; }
  absl::Mutex mutex_;
  int64_t room_ ABSL_GUARDED_BY(mutex_);
};

// Per item in order: WaitForRoom (stop at false), Sink, and Refused if the engine did not take it. Then Await.
class ScoreCall : public std::enable_shared_from_this<ScoreCall> {
 public:
  ScoreCall(size_t items, ScoreWindow& window);

  // Blocks until the window has room, and takes it. False when the call has failed already: submit nothing more.
  bool WaitForRoom() ABSL_LOCKS_EXCLUDED(mutex_);
  // The sink of the item for which room was taken.
  std::shared_ptr<RequestSink> Sink(size_t item);
  void Refused(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  // Blocks until all submitted items have ended; the first failure wins. `abort_rest` is called once on a failure.
  absl::StatusOr<std::vector<ScoreOutcome>> Await(const std::function<void()>& abort_rest) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  class ItemSink;
  void OnItemEnd(size_t item, RequestEnd end) ABSL_LOCKS_EXCLUDED(mutex_);
  bool EndedOrFailed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return in_flight_ == 0 || !status_.ok(); }
  bool Ended() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return in_flight_ == 0; }

  ScoreWindow& window_;
  absl::Mutex mutex_;
  int64_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<ScoreOutcome> outcomes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_SCORE_CALL_H_
