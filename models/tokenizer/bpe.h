// Byte-pair merging over the bytes of one piece. Immutable after Create; any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_BPE_H_
#define TRIMTAB_MODELS_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "models/tokenizer/text_range.h"
#include "models/tokenizer/token_id.h"

namespace trimtab {

// A merge of two neighbouring tokens into a third; its rank is its place in the list.
struct BpeMerge {
  TokenId left;
  TokenId right;
  TokenId merged;
};

struct BpeOptions {
  // A piece that is a token as a whole takes it without merging (Llama 3).
  bool ignore_merges = false;
  // Stands for bytes that no token holds; without it such bytes are dropped, as the reference does.
  std::optional<TokenId> unknown;
  bool fuse_unknown = false;  // one unknown token for a run of such bytes
};

// A token and the bytes of the piece that it stands for.
struct BpeToken {
  TokenId id;
  TextRange range;
};

class Bpe {
 public:
  // `tokens` maps the bytes of each token that text may produce to its id (control tokens must be left out).
  Bpe(absl::flat_hash_map<std::string, TokenId> tokens, const std::vector<BpeMerge>& merges, BpeOptions options);

  // Appends the tokens of `piece` (any bytes): always the merge of lowest rank first, the leftmost among equals.
  // O(n log n) in the piece's length; holds about 60 bytes per byte of the piece while it runs.
  void Encode(std::string_view piece, std::vector<BpeToken>& out) const;

  std::optional<TokenId> Find(std::string_view bytes) const;

 private:
  struct Merged {
    int32_t rank;
    TokenId id;
  };

  const Merged* FindMerge(TokenId left, TokenId right) const;

  absl::flat_hash_map<std::string, TokenId> tokens_;
  absl::flat_hash_map<uint64_t, Merged> merges_;  // key: left id, right id
  std::array<TokenId, 256> byte_token_;           // -1: no token is this byte
  BpeOptions options_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_BPE_H_
