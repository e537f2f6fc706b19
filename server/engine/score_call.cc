#include "server/engine/score_call.h"

#include <algorithm>
#include <utility>

namespace trimtab {

void ScoreWindow::Enter() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &ScoreWindow::HasRoom));
  --room_;
}

void ScoreWindow::Leave() {
  absl::MutexLock lock(&mutex_);
  ++room_;
}

class ScoreCall::ItemSink final : public RequestSink {
 public:
  ItemSink(std::shared_ptr<ScoreCall> call, size_t item) : call_(std::move(call)), item_(item) {}
  void OnToken(OutputToken) override {}
  void OnEnd(RequestEnd end) override { call_->OnItemEnd(item_, std::move(end)); }

 private:
  const std::shared_ptr<ScoreCall> call_;
  const size_t item_;
};

ScoreCall::ScoreCall(size_t items, ScoreWindow& window) : window_(window), outcomes_(items) {}

bool ScoreCall::WaitForRoom() {
  window_.Enter();
  absl::MutexLock lock(&mutex_);
  if (status_.ok()) {
    ++in_flight_;
    return true;
  }
  window_.Leave();
  return false;
}

std::shared_ptr<RequestSink> ScoreCall::Sink(size_t item) {
  return std::make_shared<ItemSink>(shared_from_this(), item);
}

void ScoreCall::Refused(const absl::Status& status) {
  window_.Leave();
  absl::MutexLock lock(&mutex_);
  status_.Update(status);
  --in_flight_;
}

void ScoreCall::OnItemEnd(size_t item, RequestEnd end) {
  window_.Leave();
  absl::MutexLock lock(&mutex_);
  status_.Update(end.status);
  outcomes_[item].tokens = std::move(end.scored);
  outcomes_[item].cached_prompt_tokens = end.usage.cached_prompt_tokens;
  --in_flight_;
}

absl::StatusOr<std::vector<ScoreOutcome>> ScoreCall::Await(const std::function<void()>& abort_rest) {
  bool failed;
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &ScoreCall::EndedOrFailed));
    failed = !status_.ok();
  }
  if (failed) abort_rest();
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &ScoreCall::Ended));
  if (!status_.ok()) return status_;
  return std::move(outcomes_);
}

}  // namespace trimtab
