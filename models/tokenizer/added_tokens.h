// Tokens that are found in a text before it is split: control tokens such as "<|im_start|>" and words that were added
// to a vocabulary. Immutable after building; any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_ADDED_TOKENS_H_
#define TRIMTAB_MODELS_TOKENIZER_ADDED_TOKENS_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "models/tokenizer/byte_trie.h"
#include "models/tokenizer/text_range.h"
#include "models/tokenizer/token_id.h"

namespace trimtab {

// As in Hugging Face's tokenizer.json.
struct AddedToken {
  TokenId id = 0;
  std::string text;          // never empty
  bool special = false;      // a control token
  bool normalized = false;   // looked for in the normalised text, else in the raw one
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
};

// A part of a text: an added token, or text in between (no id).
struct AddedTokenSection {
  TextRange range;
  std::optional<TokenId> id;
};

class AddedTokenMatcher {
 public:
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  // Cuts `text` (valid UTF-8) at its added tokens: the leftmost first, the longest among those that begin together.
  // Control tokens are not found in a range for which `is_plain` holds.
  // Time: the text's length times the longest token's.
  std::vector<AddedTokenSection> Split(std::string_view text, absl::FunctionRef<bool(TextRange)> is_plain) const;

  bool empty() const { return tokens_.empty(); }

 private:
  // The longest token that begins at `position` and may be there; null if none.
  const AddedToken* LongestAt(std::string_view text, size_t position,
                              absl::FunctionRef<bool(TextRange)> is_plain) const;

  std::vector<AddedToken> tokens_;
  ByteTrie trie_;  // values: places in tokens_
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_ADDED_TOKENS_H_
