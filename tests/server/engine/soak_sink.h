// Where the soak's requests report to. Any thread.
#ifndef TRIMTAB_TESTS_SERVER_ENGINE_SOAK_SINK_H_
#define TRIMTAB_TESTS_SERVER_ENGINE_SOAK_SINK_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/request.h"

namespace trimtab {

// What all sinks report to.
class Tally {
 public:
  void Fail(const std::string& what) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (failures_.size() < 20) failures_.push_back(what);
  }
  void Submitted() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    ++in_flight_;
  }
  void Refused() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    --in_flight_;
  }
  void Ended(FinishReason reason, int64_t tokens) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    --in_flight_;
    ++ends_[static_cast<size_t>(reason)];
    tokens_ += tokens;
  }
  // Until fewer than `count` are in flight, or (false) a moment has passed.
  bool AwaitFewer(int64_t count) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    const auto fewer = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return in_flight_ < count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&fewer), absl::Milliseconds(20));
  }
  bool AwaitNone(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    const auto none = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return in_flight_ == 0; };
    return mutex_.AwaitWithTimeout(absl::Condition(&none), timeout);
  }
  std::array<int64_t, 7> ends() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return ends_;
  }
  int64_t tokens() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return tokens_;
  }
  std::vector<std::string> failures() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return failures_;
  }

 private:
  mutable absl::Mutex mutex_;
  int64_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0, tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  std::array<int64_t, 7> ends_ ABSL_GUARDED_BY(mutex_) = {};  // by FinishReason
  std::vector<std::string> failures_ ABSL_GUARDED_BY(mutex_);
};

// Checks what it is told, and that it is told of the end exactly once.
class SoakSink final : public RequestSink {
 public:
  SoakSink(Tally& tally, std::string id, int64_t limit) : tally_(tally), id_(std::move(id)), limit_(limit) {}
  ~SoakSink() override {
    if (accepted && ends_ != 1) tally_.Fail(absl::StrCat(id_, " ended ", ends_.load(), " times"));
  }

  void OnToken(OutputToken token) override {
    if (ends_ > 0) tally_.Fail(absl::StrCat(id_, " got a token after its end"));
    ++count_;
    if (keep) tokens.push_back(token.token);
  }
  void OnEnd(RequestEnd end) override {
    const bool whole = end.reason == FinishReason::kStop || end.reason == FinishReason::kLength;
    if (end.status.ok() != whole) tally_.Fail(absl::StrCat(id_, ": ", end.status.ToString()));
    if (end.reason == FinishReason::kError) tally_.Fail(absl::StrCat(id_, ": ", end.status.ToString()));
    // A score request's output is the text it was given, whether or not all of it was scored.
    const int64_t output = score ? static_cast<int64_t>(end.scored.size()) : count_.load();
    if (end.usage.output_tokens != output && (whole || !score)) {
      tally_.Fail(absl::StrCat(id_, " counts its tokens wrong"));
    }
    complete = whole;
    ++ends_;
    tally_.Ended(end.reason, end.usage.output_tokens);
  }
  // False once the reader took so many; true again when it goes on.
  bool Ready() const override { return count_ < limit_ || going_on_; }
  void GoOn() { going_on_ = true; }
  bool ended() const { return ends_ > 0; }

  bool accepted = false;  // by Submit; the driver's
  bool score = false;
  bool keep = false;
  std::vector<TokenId> tokens;        // if kept; the engine's until the end
  std::atomic<bool> complete{false};  // not cut off

 private:
  Tally& tally_;
  const std::string id_;
  const int64_t limit_;
  std::atomic<int64_t> count_{0};
  std::atomic<int> ends_{0};
  std::atomic<bool> going_on_{false};
};

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_ENGINE_SOAK_SINK_H_
