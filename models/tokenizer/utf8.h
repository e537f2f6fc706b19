// UTF-8 as the tokenizers need it: replacement of broken sequences and single code points. Any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_UTF8_H_
#define TRIMTAB_MODELS_TOKENIZER_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace trimtab {

// What a UTF-8 decoder finds at one position of a text.
struct Utf8Step {
  size_t length;       // bytes to step over: a whole code point, or the maximal broken part of one
  bool valid;          // a well-formed code point
  bool needs_more;     // broken only because the text ends here: more bytes could complete it
  char32_t codepoint;  // U+FFFD unless valid
};

// Reads the code point that begins at `text[position]`; `position` must be below `text.size()`. Follows the Unicode
// standard's "maximal subpart" rule, as Rust's from_utf8_lossy and Python's errors="replace" do.
Utf8Step ReadUtf8(std::string_view text, size_t position);

bool IsValidUtf8(std::string_view text);

// What U+FFFD stands for in place of broken UTF-8: each maximal broken part, or each byte of it.
enum class BrokenUtf8 { kPerPart, kPerByte };

// `text` with broken UTF-8 replaced by U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view text, BrokenUtf8 broken = BrokenUtf8::kPerPart);

// Appends valid code points and replaces broken ones, but stops before a final sequence that more bytes could complete
// (at most 3 bytes). Returns how many bytes of `text` were taken.
size_t AppendCompleteUtf8(std::string_view text, std::string& out, BrokenUtf8 broken = BrokenUtf8::kPerPart);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_UTF8_H_
