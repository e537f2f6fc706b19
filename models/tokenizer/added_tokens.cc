#include "models/tokenizer/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>

#include "models/tokenizer/utf8.h"

namespace trimtab {
namespace {

// Unicode's White_Space, as \s of the reference.
bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

// \w of the reference: Alphabetic, marks, decimal digits, connector punctuation, joiners.
bool IsWord(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      // Joiners, and the enclosed letters: symbols that are Alphabetic all the same.
      return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
             (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
  }
}

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
    if (!IsSpace(ReadUtf8(text, begin).codepoint)) break;
    end = begin;
  }
  return end;
}

size_t SkipSpaces(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Utf8Step step = ReadUtf8(text, begin);
    if (!IsSpace(step.codepoint)) break;
    begin += step.length;
  }
  return begin;
}

uint64_t EdgeKey(int32_t node, char byte) {
  return static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(byte);
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)), token_at_{-1} {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    int32_t node = kRoot;
    for (const char byte : tokens_[i].text) {
      const auto [edge, is_new] = children_.try_emplace(EdgeKey(node, byte), static_cast<int32_t>(token_at_.size()));
      if (is_new) token_at_.push_back(-1);
      node = edge->second;
    }
    token_at_[node] = static_cast<int32_t>(i);
    starts_token_[static_cast<unsigned char>(tokens_[i].text[0])] = true;
  }
}

const AddedToken* AddedTokenMatcher::LongestAt(std::string_view text, size_t position,
                                               absl::FunctionRef<bool(TextRange)> is_plain) const {
  const AddedToken* longest = nullptr;
  int32_t node = kRoot;
  for (size_t i = position; i < text.size(); ++i) {
    const auto edge = children_.find(EdgeKey(node, text[i]));
    if (edge == children_.end()) break;
    node = edge->second;
    if (token_at_[node] < 0) continue;
    const AddedToken& token = tokens_[token_at_[node]];
    if (!token.special || !is_plain({position, i + 1})) longest = &token;
  }
  return longest;
}

std::vector<AddedTokenSection> AddedTokenMatcher::Split(std::string_view text,
                                                        absl::FunctionRef<bool(TextRange)> is_plain) const {
  std::vector<AddedTokenSection> sections;
  size_t done = 0;  // everything before is in a section
  for (size_t i = 0; i < text.size();) {
    const AddedToken* token =
        starts_token_[static_cast<unsigned char>(text[i])] ? LongestAt(text, i, is_plain) : nullptr;
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
