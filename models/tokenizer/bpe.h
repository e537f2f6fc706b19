// Byte-pair merging over one piece, from its bytes (GPT-2 and later) or its characters (SentencePiece's BPE). Immutable
// after building; any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_BPE_H_
#define TRIMTAB_MODELS_TOKENIZER_BPE_H_

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "models/tokenizer/piece_token.h"
#include "models/tokenizer/token_id.h"

namespace trimtab {

// A merge of two neighbouring tokens into a third; its rank is its place in the list.
struct BpeMerge {
  TokenId left;
  TokenId right;
  TokenId merged;
};

struct BpeOptions {
  // Merging begins with single bytes; otherwise with characters (pieces are then valid UTF-8).
  bool byte_level = true;
  // A piece that is a token as a whole takes it without merging (Llama 3).
  bool ignore_merges = false;
  // Characters that no token holds are written in these, if there is one for each of their bytes.
  ByteTokens byte_fallback = kNoByteTokens;
  // Stands for what is still left; without it that is dropped, as the reference does.
  std::optional<TokenId> unknown;
  bool fuse_unknown = false;  // one unknown token for a run
};

class Bpe {
 public:
  // The texts in `tokens` must outlive this object.
  Bpe(TokensByText tokens, const std::vector<BpeMerge>& merges, BpeOptions options);

  // Appends the tokens of `piece`: always the merge of lowest rank first, the leftmost among equals.
  // O(n log n) in the piece's length; holds about 60 bytes per byte of the piece while it runs.
  void Encode(std::string_view piece, std::vector<PieceToken>& out) const;

  std::optional<TokenId> Find(std::string_view text) const;

 private:
  struct Merged {
    int32_t rank;
    TokenId id;
  };
  struct Symbol;

  const Merged* FindMerge(TokenId left, TokenId right) const;
  // What merging begins with.
  std::vector<Symbol> Symbols(std::string_view piece) const;

  TokensByText tokens_;
  absl::flat_hash_map<uint64_t, Merged> merges_;  // key: left id, right id
  ByteTokens single_byte_;                        // the tokens of one byte
  BpeOptions options_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_BPE_H_
