#include "steering/preference.h"

#include "server/base/hash.h"

namespace trimtab {

std::string PairsHash(const std::vector<PreferencePair>& pairs) {
  Sha256 hash;
  for (const PreferencePair& pair : pairs) {
    const uint64_t messages = pair.prompt.size();
    hash.Update(&messages, sizeof(messages));
    for (const ChatMessage& message : pair.prompt) hash.UpdateField(message.role).UpdateField(message.text);
    hash.UpdateField(pair.preferred).UpdateField(pair.dispreferred);
    hash.Update(&pair.weight, sizeof(pair.weight));
  }
  return hash.FinishHex();
}

}  // namespace trimtab
