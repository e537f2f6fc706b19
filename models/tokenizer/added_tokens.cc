#include "models/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "models/tokenizer/unicode.h"
#include "models/tokenizer/utf8.h"

namespace trimtab {
namespace {

// Where the code point that ends before `end` begins.
size_t PreviousBegin(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

bool EndsWithWord(std::string_view text, size_t end) {
  return end > 0 && IsWord(ReadUtf8(text, PreviousBegin(text, end)).codepoint);
}

bool StartsWithWord(std::string_view text, size_t begin) {
  return begin < text.size() && IsWord(ReadUtf8(text, begin).codepoint);
}

size_t SkipSpacesBack(std::string_view text, size_t end) {
  while (end > 0) {
    const size_t begin = PreviousBegin(text, end);
    if (!IsWhiteSpace(ReadUtf8(text, begin).codepoint)) break;
    end = begin;
  }
  return end;
}

size_t SkipSpaces(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Utf8Step step = ReadUtf8(text, begin);
    if (!IsWhiteSpace(step.codepoint)) break;
    begin += step.length;
  }
  return begin;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) trie_.Add(tokens_[i].text, static_cast<int32_t>(i));
}

const AddedToken* AddedTokenMatcher::LongestAt(std::string_view text, size_t position,
                                               absl::FunctionRef<bool(TextRange)> is_plain) const {
  const AddedToken* longest = nullptr;
  trie_.ForEachPrefix(text, position, [&](size_t end, int32_t index) {
    const AddedToken& token = tokens_[index];
    if (!token.special || !is_plain({position, end})) longest = &token;
  });
  return longest;
}

std::vector<AddedTokenSection> AddedTokenMatcher::Split(std::string_view text,
                                                        absl::FunctionRef<bool(TextRange)> is_plain) const {
  std::vector<AddedTokenSection> sections;
  size_t done = 0;  // everything before is in a section
  for (size_t i = 0; i < text.size();) {
    const AddedToken* token = trie_.Starts(text[i]) ? LongestAt(text, i, is_plain) : nullptr;
    if (token == nullptr) {
      ++i;
      continue;
    }
    size_t begin = i;
    size_t end = i + token->text.size();
    i = end;
    if (token->single_word && (EndsWithWord(text, begin) || StartsWithWord(text, end))) continue;
    if (token->lstrip) begin = std::max(SkipSpacesBack(text, begin), done);
    if (token->rstrip) end = i = SkipSpaces(text, end);
    if (done < begin) sections.push_back({{done, begin}, std::nullopt});
    sections.push_back({{begin, end}, token->id});
    done = end;
  }
  if (done < text.size()) sections.push_back({{done, text.size()}, std::nullopt});
  return sections;
}

}  // namespace trimtab
