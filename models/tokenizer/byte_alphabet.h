// The printable alphabet of byte-level BPE (GPT-2's bytes_to_unicode): vocabularies write each byte of a token as one
// printable character, for example a space as "Ġ". Any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_BYTE_ALPHABET_H_
#define TRIMTAB_MODELS_TOKENIZER_BYTE_ALPHABET_H_

#include <optional>
#include <string>
#include <string_view>

namespace trimtab {

// The bytes that `text` stands for; nothing when a character of it is outside the alphabet (as in most added tokens).
std::optional<std::string> DecodeByteAlphabet(std::string_view text);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_BYTE_ALPHABET_H_
