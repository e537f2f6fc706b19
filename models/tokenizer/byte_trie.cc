#include "models/tokenizer/byte_trie.h"

namespace trimtab {

void ByteTrie::Add(std::string_view word, int32_t value) {
  int32_t node = -1;
  for (size_t i = 0; i < word.size(); ++i) {
    const auto fresh = static_cast<int32_t>(values_.size());
    int32_t& next =
        i == 0 ? first_[static_cast<unsigned char>(word[0])] : edges_.try_emplace(Key(node, word[i]), -1).first->second;
    if (next < 0) {
      next = fresh;
      values_.push_back(-1);
    }
    node = next;
  }
  values_[node] = value;
}

}  // namespace trimtab
