// What the tokenizers need of Unicode's tables (utf8proc): classes, cases and normal forms. Any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_UNICODE_H_
#define TRIMTAB_MODELS_TOKENIZER_UNICODE_H_

#include <string>
#include <string_view>

namespace trimtab {

// Unicode's White_Space.
bool IsWhiteSpace(char32_t c);

// \w of Rust's regex crate: Alphabetic, marks, decimal digits, connector punctuation, joiners.
bool IsWord(char32_t c);

bool IsAscii(std::string_view text);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// `text` (valid UTF-8) in a normal form. Linear in its length but for sorting runs of combining marks.
std::string ToNormalForm(std::string_view text, NormalForm form);

// `text` (valid UTF-8) with each character in lower case, whatever stands around it.
std::string ToLower(std::string_view text);

void AppendUtf8(char32_t c, std::string& out);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_UNICODE_H_
