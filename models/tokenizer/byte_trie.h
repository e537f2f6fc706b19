// A trie over the bytes of many words. Immutable after building; any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_BYTE_TRIE_H_
#define TRIMTAB_MODELS_TOKENIZER_BYTE_TRIE_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace trimtab {

class ByteTrie {
 public:
  // Gives `word` (not empty) a value >= 0; the last one given counts.
  void Add(std::string_view word, int32_t value);

  // Calls `visit(end, value)` for every word that begins at `position` of `text`, the shortest first.
  template <typename Visit>
  void ForEachPrefix(std::string_view text, size_t position, const Visit& visit) const {
    if (position >= text.size()) return;
    int32_t node = first_[static_cast<unsigned char>(text[position])];
    for (size_t end = position + 1; node >= 0; ++end) {
      if (values_[node] >= 0) visit(end, values_[node]);
      if (end == text.size()) return;
      const auto edge = edges_.find(Key(node, text[end]));
      node = edge == edges_.end() ? -1 : edge->second;
    }
  }

  // Whether any word begins with `byte`.
  bool Starts(char byte) const { return first_[static_cast<unsigned char>(byte)] >= 0; }

 private:
  static uint64_t Key(int32_t node, char byte) {
    return static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(byte);
  }

  // The nodes of one byte, -1: none. Most positions of a text begin no word: no look-up in a map for them.
  std::vector<int32_t> first_ = std::vector<int32_t>(256, -1);
  absl::flat_hash_map<uint64_t, int32_t> edges_;  // (node << 8 | byte) → node
  std::vector<int32_t> values_;                   // of each node; -1: no word ends there
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_BYTE_TRIE_H_
