#include "models/tokenizer/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace trimtab {

StopMatcher::StopMatcher(std::vector<std::string> stop_sequences) {
  for (std::string& sequence : stop_sequences) {
    if (sequence.empty()) continue;
    std::vector<size_t> failure(sequence.size(), 0);
    for (size_t i = 1; i < sequence.size(); ++i) {
      size_t border = failure[i - 1];
      while (border > 0 && sequence[i] != sequence[border]) border = failure[border - 1];
      failure[i] = sequence[i] == sequence[border] ? border + 1 : border;
    }
    matchers_.push_back({std::move(sequence), std::move(failure)});
  }
}

void StopMatcher::Matcher::Advance(char byte) {
  while (matched > 0 && sequence[matched] != byte) matched = failure[matched - 1];
  if (sequence[matched] == byte) ++matched;
}

StopMatcher::Result StopMatcher::Push(std::string_view text) {
  if (stopped_) return {"", true};
  for (const char byte : text) {
    held_ += byte;
    size_t stop_length = 0;
    for (Matcher& matcher : matchers_) {
      matcher.Advance(byte);
      if (matcher.matched == matcher.sequence.size()) stop_length = std::max(stop_length, matcher.matched);
    }
    if (stop_length > 0) {
      stopped_ = true;
      held_.resize(held_.size() - stop_length);
      return {std::exchange(held_, ""), true};
    }
  }
  size_t keep = 0;
  for (const Matcher& matcher : matchers_) keep = std::max(keep, matcher.matched);
  Result result{held_.substr(0, held_.size() - keep), false};
  held_.erase(0, held_.size() - keep);
  return result;
}

std::string StopMatcher::Flush() { return std::exchange(held_, ""); }

}  // namespace trimtab
