// A ServedModel whose tokens are bytes and whose engine is a thread that a test scripts. Behaves as Engine promises:
// every accepted request gets exactly one OnEnd, an Abort takes effect at once, a sequence whose sink is not Ready
// waits for Resume.
#ifndef TRIMTAB_TESTS_SERVER_RPC_FAKE_MODEL_H_
#define TRIMTAB_TESTS_SERVER_RPC_FAKE_MODEL_H_

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "models/tokenizer/utf8.h"
#include "server/rpc/served_model.h"

namespace trimtab {

class ByteDecoder final : public TextDecoder {
 public:
  std::string Push(TokenId token) override {
    held_ += static_cast<char>(token);
    std::string out;
    held_.erase(0, AppendCompleteUtf8(held_, out));
    return out;
  }
  std::string Flush() override { return held_.empty() ? "" : (held_.clear(), std::string(kReplacementCharacter)); }

 private:
  std::string held_;
};

class FakeModel final : public ServedModel, public Scorer {
 public:
  static constexpr TokenId kEnd = 256;

  // What the model answers to any prompt. By default the prompt itself, then an end token.
  struct Script {
    std::optional<std::string> answer;  // unset: the prompt's text
    bool endless = false;               // repeats the answer for ever
    bool hang = false;                  // produces nothing until aborted
    absl::Status failure;               // ends with kError after the answer
    absl::Status refusal;               // Submit's answer
    bool stall = false;                 // gives a sequence whose sink is not ready up, as after the stall time-out
  };

  explicit FakeModel(std::string id = "fake") : id_(std::move(id)), engine_([this] { Run(); }) {}
  ~FakeModel() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    engine_.join();
  }

  void set_script(Script script) {
    absl::MutexLock lock(&mutex_);
    script_ = std::move(script);
  }
  // Blocks until `count` requests have been accepted since the start.
  void WaitForSubmitted(int count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return submitted_ >= count; };
    mutex_.Await(absl::Condition(&enough));
  }
  // Blocks until no request is running.
  void WaitForIdle() {
    absl::MutexLock lock(&mutex_);
    const auto idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return sequences_.empty() && inbox_.empty(); };
    mutex_.Await(absl::Condition(&idle));
  }
  // Blocks until some sequence waits for its reader.
  void WaitForPause() {
    absl::MutexLock lock(&mutex_);
    const auto paused = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return paused_ > 0; };
    mutex_.Await(absl::Condition(&paused));
  }
  std::vector<FinishReason> aborts() const {
    absl::MutexLock lock(&mutex_);
    return aborts_;
  }
  // A copy of the last accepted request without its sink.
  Request last_request() const {
    absl::MutexLock lock(&mutex_);
    return last_;
  }

  void set_has_chat_template(bool has) { has_chat_template_ = has; }

  const std::string& id() const override { return id_; }
  const std::string& fingerprint() const override { return fingerprint_; }
  v1::Model Describe() const override {
    v1::Model model;
    model.set_name(ModelName(id_));
    model.set_architecture("llama");
    model.set_context_length(4096);
    model.set_num_layers(4);
    model.set_hidden_size(2);
    model.set_fingerprint(fingerprint_);
    model.set_state(v1::Model::STATE_READY);
    model.add_drift_suites("probe");
    model.set_has_chat_template(has_chat_template_);
    return model;
  }
  absl::StatusOr<std::vector<TokenId>> Encode(const PromptInput& input) const override {
    if (input.messages.empty()) return EncodeContinuation(input.raw);
    std::string text;
    for (const ChatMessage& message : input.messages) text += message.role + ": " + message.text + "\n";
    return EncodeContinuation(text);
  }
  std::vector<TokenId> EncodeContinuation(std::string_view text) const override {
    std::vector<TokenId> tokens;
    // Answer letters are one token, as in real vocabularies.
    if (text.size() == 2 && text[0] == ' ') return {static_cast<unsigned char>(text[1])};
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
  }
  const std::vector<TokenId>& end_tokens() const override { return end_tokens_; }
  std::string TokenText(TokenId token) const override {
    return token < 128 ? std::string(1, static_cast<char>(token)) : std::string(kReplacementCharacter);
  }
  std::unique_ptr<TextDecoder> NewDecoder() const override { return std::make_unique<ByteDecoder>(); }

  absl::Status Submit(std::unique_ptr<Request> request) override {
    absl::MutexLock lock(&mutex_);
    if (!script_.refusal.ok()) return script_.refusal;
    last_ = *request;
    last_.sink.reset();
    inbox_.push_back({.request = std::move(request), .script = script_});
    ++submitted_;
    return absl::OkStatus();
  }
  void Abort(const std::string& id, FinishReason reason) override {
    absl::MutexLock lock(&mutex_);
    aborts_.push_back(reason);
    aborted_[id] = reason;
    ++wakes_;
  }
  void Resume(const std::string&) override {
    absl::MutexLock lock(&mutex_);
    ++wakes_;
  }
  Scorer& scorer() override { return *this; }
  // Finds every token equally likely, unsteered and steered.
  absl::StatusOr<std::vector<ScoreOutcome>> Score(std::vector<ScoreItem> items) override {
    std::vector<ScoreOutcome> outcomes;
    for (const ScoreItem& item : items) {
      ScoreOutcome& outcome = outcomes.emplace_back();
      for (size_t i = item.prompt_length; i < item.tokens.size(); ++i) {
        ScoredToken& scored = outcome.tokens.emplace_back();
        scored.token = item.tokens[i];
        scored.logprob = -4;
        for (int k = 0; k < item.top; ++k) scored.top.push_back({.token = k, .logprob = -4});
        const size_t position = i - item.prompt_length;
        if (position < item.watch.size()) scored.watched.assign(item.watch[position].size(), -4);
      }
    }
    return outcomes;
  }

 private:
  struct Sequence {
    std::unique_ptr<Request> request;
    Script script;
    int64_t produced = 0;
    bool paused = false;
  };

  void Run() {
    int seen_wakes = 0;
    for (;;) {
      std::vector<Sequence*> turn;
      {
        absl::MutexLock lock(&mutex_);
        const auto work = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
          return stopping_ || !inbox_.empty() || wakes_ != seen_wakes || Runnable();
        };
        mutex_.Await(absl::Condition(&work));
        seen_wakes = wakes_;
        for (Sequence& sequence : inbox_) sequences_.push_back(std::make_unique<Sequence>(std::move(sequence)));
        inbox_.clear();
        if (stopping_ && sequences_.empty()) return;
        for (const auto& sequence : sequences_) turn.push_back(sequence.get());
      }
      for (Sequence* const sequence : turn) Step(*sequence);
    }
  }

  bool Runnable() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return std::any_of(sequences_.begin(), sequences_.end(),
                       [](const auto& sequence) { return !sequence->paused && !sequence->script.hang; });
  }

  // One token, or the end. Engine thread.
  void Step(Sequence& sequence) {
    const Request& request = *sequence.request;
    std::optional<FinishReason> abort;
    {
      absl::MutexLock lock(&mutex_);
      if (const auto it = aborted_.find(request.id); it != aborted_.end()) abort = it->second;
      if (stopping_) abort = FinishReason::kCancelled;
    }
    if (abort) return End(sequence, *abort, absl::OkStatus());
    if (sequence.script.hang) return;
    if (!request.sink->Ready()) {
      if (sequence.script.stall) return End(sequence, FinishReason::kCancelled, absl::CancelledError("stalled"));
      absl::MutexLock lock(&mutex_);
      if (!sequence.paused) ++paused_;
      sequence.paused = true;
      return;
    }
    if (sequence.paused) {
      absl::MutexLock lock(&mutex_);
      --paused_;
      sequence.paused = false;
    }
    if (request.score) return End(sequence, FinishReason::kStop, absl::OkStatus());
    std::string answer;
    if (sequence.script.answer) {
      answer = *sequence.script.answer;
    } else {
      for (const TokenId token : request.tokens) answer += static_cast<char>(token);
    }
    const auto length = static_cast<int64_t>(answer.size());
    if (sequence.produced >= request.sampling.max_output_tokens) {
      return End(sequence, FinishReason::kLength, absl::OkStatus());
    }
    if (sequence.produced >= length && !sequence.script.endless) {
      if (!sequence.script.failure.ok()) return End(sequence, FinishReason::kError, sequence.script.failure);
      request.sink->OnToken({.token = kEnd});
      return End(sequence, FinishReason::kStop, absl::OkStatus());
    }
    OutputToken token{.token = static_cast<unsigned char>(answer[sequence.produced % length]), .logprob = -0.5f};
    for (int i = 0; i < request.sampling.logprobs; ++i) token.top.push_back({.token = 'a' + i, .logprob = -1.0f - i});
    ++sequence.produced;
    request.sink->OnToken(std::move(token));
  }

  void End(Sequence& sequence, FinishReason reason, absl::Status status) {
    RequestEnd end{.reason = reason, .status = std::move(status)};
    const Request& request = *sequence.request;
    end.usage = {.prompt_tokens = request.prompt_length, .output_tokens = sequence.produced};
    end.timing = {.queue = absl::Milliseconds(1), .prefill = absl::Milliseconds(2), .decode = absl::Milliseconds(3)};
    for (size_t i = 0; i < request.plan.entries().size(); ++i) {
      end.doses.push_back({.steered_tokens = 10, .mean_relative_dose = 0.5f});
    }
    if (request.score) {
      for (size_t i = request.prompt_length; i < request.tokens.size(); ++i) {
        end.scored.push_back({.token = request.tokens[i], .logprob = -0.25f, .is_greedy = request.tokens[i] != 'x'});
      }
    }
    request.sink->OnEnd(std::move(end));
    absl::MutexLock lock(&mutex_);
    if (sequence.paused) --paused_;
    sequences_.erase(std::find_if(sequences_.begin(), sequences_.end(),
                                  [&](const auto& other) { return other.get() == &sequence; }));
  }

  const std::string id_;
  const std::string fingerprint_ = "fingerprint-of-fake";
  const std::vector<TokenId> end_tokens_ = {kEnd};
  std::atomic<bool> has_chat_template_ = true;

  mutable absl::Mutex mutex_;
  Script script_ ABSL_GUARDED_BY(mutex_);
  std::vector<Sequence> inbox_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Sequence>> sequences_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, FinishReason> aborted_ ABSL_GUARDED_BY(mutex_);
  std::vector<FinishReason> aborts_ ABSL_GUARDED_BY(mutex_);
  Request last_ ABSL_GUARDED_BY(mutex_);
  int submitted_ ABSL_GUARDED_BY(mutex_) = 0;
  int paused_ ABSL_GUARDED_BY(mutex_) = 0;
  int wakes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread engine_;
};

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_RPC_FAKE_MODEL_H_
