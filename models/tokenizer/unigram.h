// The Unigram model of SentencePiece: the most likely way to write a piece in tokens that each have a score. Immutable
// after building; any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_UNIGRAM_H_
#define TRIMTAB_MODELS_TOKENIZER_UNIGRAM_H_

#include <optional>
#include <string_view>
#include <vector>

#include "models/tokenizer/byte_trie.h"
#include "models/tokenizer/piece_token.h"
#include "models/tokenizer/token_id.h"

namespace trimtab {

struct UnigramOptions {
  // What no token holds: written in these tokens, if there is one for each byte of a run, or else as `unknown`.
  ByteTokens byte_fallback = kNoByteTokens;
  // Without it such characters are dropped (the reference stops with an error).
  std::optional<TokenId> unknown;
};

class Unigram {
 public:
  // `scores` holds the log-probability of each token by id, also of those not in `tokens`.
  Unigram(TokensByText tokens, std::vector<double> scores, UnigramOptions options);

  // Appends the tokens of `piece` (valid UTF-8): those of the greatest total score (Viterbi); where several are equal,
  // those whose last token is the longest. O(n) for a vocabulary of bounded token length; holds 24 bytes per byte of
  // the piece while it runs.
  void Encode(std::string_view piece, std::vector<PieceToken>& out) const;

  std::optional<TokenId> Find(std::string_view text) const;

 private:
  void AppendUnknown(std::string_view piece, TextRange range, std::vector<PieceToken>& out) const;

  TokensByText tokens_;
  ByteTrie trie_;  // of the tokens; values: ids
  std::vector<double> scores_;
  double unknown_score_;
  UnigramOptions options_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_UNIGRAM_H_
