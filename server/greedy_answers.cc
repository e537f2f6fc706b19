#include "server/greedy_answers.h"

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace trimtab {
namespace {

constexpr absl::Duration kLook = absl::Milliseconds(100);  // between two checkpoints while waiting

// Collects the tokens of all requests; outlives the call through the sinks.
class Answers {
 public:
  explicit Answers(size_t count) : tokens_(count) {}

  void Expect() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    ++in_flight_;
  }
  void Add(size_t answer, TokenId token) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    tokens_[answer].push_back(token);
  }
  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    status_.Update(status);
    --in_flight_;
  }
  // Waits at most `timeout`; whether all have ended or one has failed.
  bool Await(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(this, &Answers::EndedOrFailed), timeout);
  }
  void AwaitEnd() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &Answers::Ended));
  }
  // When all have ended.
  absl::StatusOr<std::vector<std::vector<TokenId>>> Take() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (!status_.ok()) return status_;
    return std::move(tokens_);
  }

 private:
  bool Ended() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return in_flight_ == 0; }
  bool EndedOrFailed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return in_flight_ == 0 || !status_.ok(); }

  absl::Mutex mutex_;
  int64_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::vector<TokenId>> tokens_ ABSL_GUARDED_BY(mutex_);
};

class Sink final : public RequestSink {
 public:
  Sink(std::shared_ptr<Answers> answers, size_t answer) : answers_(std::move(answers)), answer_(answer) {}
  void OnToken(OutputToken token) override { answers_->Add(answer_, token.token); }
  void OnEnd(RequestEnd end) override { answers_->End(end.status); }

 private:
  const std::shared_ptr<Answers> answers_;
  const size_t answer_;
};

}  // namespace

absl::StatusOr<std::vector<std::string>> GreedyAnswers(ServedModel& model,
                                                       const std::vector<std::vector<TokenId>>& prompts,
                                                       const SteeringPlan& plan, int64_t max_tokens,
                                                       const std::string& id, JobContext& job) {
  const auto answers = std::make_shared<Answers>(prompts.size());
  std::vector<std::string> ids;
  absl::Status go_on = job.Checkpoint();
  for (size_t i = 0; i < prompts.size() && go_on.ok(); ++i) {
    auto request = std::make_unique<Request>();
    request->id = absl::StrCat(id, "-", i);
    request->tokens = prompts[i];
    request->prompt_length = static_cast<int64_t>(prompts[i].size());
    request->sampling.max_output_tokens = max_tokens;
    request->sampling.end_tokens = model.end_tokens();
    request->plan = plan;
    request->priority = Priority::kBackground;
    request->internal = true;
    request->sink = std::make_shared<Sink>(answers, i);
    ids.push_back(request->id);
    answers->Expect();
    const absl::Status submitted = model.Submit(std::move(request));
    if (!submitted.ok()) answers->End(submitted);
  }
  while (go_on.ok() && !answers->Await(kLook)) go_on = job.Checkpoint();
  // Those that have ended already do not mind.
  for (const std::string& request : ids) model.Abort(request, FinishReason::kCancelled);
  answers->AwaitEnd();
  if (!go_on.ok()) return go_on;
  absl::StatusOr<std::vector<std::vector<TokenId>>> tokens = answers->Take();
  if (!tokens.ok()) return tokens.status();
  std::vector<std::string> texts;
  for (const std::vector<TokenId>& answer : *tokens) {
    const std::unique_ptr<TextDecoder> decoder = model.NewDecoder();
    std::string text;
    for (const TokenId token : answer) text += decoder->Push(token);
    texts.push_back(text + decoder->Flush());
  }
  return texts;
}

}  // namespace trimtab
