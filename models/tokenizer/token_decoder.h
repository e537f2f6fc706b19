// From the text of a token in a vocabulary to the bytes that it stands for: the "decoder" of a tokenizer.json.
// Immutable after building; any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_TOKEN_DECODER_H_
#define TRIMTAB_MODELS_TOKENIZER_TOKEN_DECODER_H_

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "models/tokenizer/normalizer.h"

namespace trimtab {

// Takes at most `start` and `stop` of `content`, one character, from the two ends.
struct StripCharacterStep {
  std::string content;
  size_t start = 0;
  size_t stop = 0;
};

// "▁" becomes a space; at the beginning of a text it is dropped if `drop_first`.
struct MetaspaceDecoderStep {
  std::string replacement;
  bool drop_first = true;
};

using TokenDecoderStep = std::variant<ReplaceStep, StripCharacterStep, MetaspaceDecoderStep>;

struct TokenDecoderOptions {
  // What is done to each token on its own, in order.
  std::vector<TokenDecoderStep> steps;
  // Tokens such as "<0x0A>" stand for a byte.
  bool byte_fallback = false;
  // Taken from the beginning of a whole text, after all else.
  std::optional<StripCharacterStep> strip;
};

// Where a text stands of which tokens have been decoded.
struct DecodePosition {
  bool is_first = true;   // the next token is the text's first
  bool may_strip = true;  // TokenDecoderOptions::strip has not ended
  size_t stripped = 0;    // characters that it took

  static DecodePosition Inside() { return {.is_first = false, .may_strip = false}; }
};

class TokenDecoder {
 public:
  explicit TokenDecoder(TokenDecoderOptions options) : options_(std::move(options)) {}

  // Appends the bytes of the next token, whose text in the vocabulary is `text`.
  void Append(std::string_view text, DecodePosition& position, std::string& bytes) const;

  // Whether each broken byte is shown as one U+FFFD, and not each maximal broken part.
  bool byte_fallback() const { return options_.byte_fallback; }

 private:
  std::string Apply(std::string_view text, bool is_first) const;

  TokenDecoderOptions options_;
};

// The byte that `text` names as "<0x0A>" does, in either case.
std::optional<unsigned char> ParseByteToken(std::string_view text);

// "<0x0A>", as vocabularies write it.
std::string ByteTokenText(unsigned char byte);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_TOKEN_DECODER_H_
