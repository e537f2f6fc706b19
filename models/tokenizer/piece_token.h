// What a model (Bpe, Unigram) makes of one piece of a text.
#ifndef TRIMTAB_MODELS_TOKENIZER_PIECE_TOKEN_H_
#define TRIMTAB_MODELS_TOKENIZER_PIECE_TOKEN_H_

#include <array>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "models/tokenizer/text_range.h"
#include "models/tokenizer/token_id.h"

namespace trimtab {

// A token and the bytes of the piece that it stands for.
struct PieceToken {
  TokenId id;
  TextRange range;
};

// The text of each token that a piece may become, and its id. Control tokens are left out.
using TokensByText = absl::flat_hash_map<absl::string_view, TokenId>;

// For each byte, the token that stands for it where no other token does ("<0x0A>"); -1: there is none.
using ByteTokens = std::array<TokenId, 256>;

inline constexpr ByteTokens kNoByteTokens = [] {
  ByteTokens none{};
  for (TokenId& token : none) token = -1;
  return none;
}();

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_PIECE_TOKEN_H_
