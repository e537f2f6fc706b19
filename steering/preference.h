// Preference pairs: what an operator registers. No torch.
#ifndef TRIMTAB_STEERING_PREFERENCE_H_
#define TRIMTAB_STEERING_PREFERENCE_H_

#include <string>
#include <vector>

#include "models/tokenizer/chat_template.h"

namespace trimtab {

struct PreferencePair {
  std::vector<ChatMessage> prompt;  // ends with a user message
  std::string preferred;
  std::string dispreferred;  // empty: likelihood objective
  double weight = 1;
};

// sha256 hex over the pairs in order; identifies a training set.
std::string PairsHash(const std::vector<PreferencePair>& pairs);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_PREFERENCE_H_
