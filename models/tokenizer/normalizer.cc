#include "models/tokenizer/normalizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "models/tokenizer/utf8.h"
#include "server/base/log.h"

namespace trimtab {
namespace {

// Replaces each part of the text that `convert` changes. An ASCII character never composes with what stands before it,
// so the parts between can be taken one by one.
template <typename Convert>
void ConvertParts(std::string_view text, const Convert& convert, TextEditor& editor) {
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin + 1;
    while (end < text.size() && static_cast<unsigned char>(text[end]) >= 0x80) ++end;
    const std::string_view part = text.substr(begin, end - begin);
    const std::string converted = convert(part);
    if (converted != part) editor.Replace({begin, end}, converted);
    begin = end;
  }
}

void Apply(NormalForm form, std::string_view text, TextEditor& editor) {
  if (IsAscii(text) || ToNormalForm(text, form) == text) return;
  ConvertParts(
      text, [form](std::string_view part) { return ToNormalForm(part, form); }, editor);
}

void Apply(const LowercaseStep&, std::string_view text, TextEditor& editor) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = ReadUtf8(text, i).length;
    const std::string_view character = text.substr(i, length);
    const std::string lower = ToLower(character);
    if (lower != character) editor.Replace({i, i + length}, lower);
    i += length;
  }
}

void Apply(const ReplaceStep& step, std::string_view text, TextEditor& editor) {
  std::vector<TextRange> matches;
  const absl::Status status = FindPattern(step.pattern, text, matches);
  if (!status.ok()) {
    LogError("a stretch of text was not normalised",
             {{"reason", std::string(status.message())}, {"bytes", absl::StrCat(text.size())}});
  }
  for (const TextRange& match : matches) editor.Replace(match, step.content);
}

void Apply(const PrependStep& step, std::string_view text, TextEditor& editor) {
  if (!text.empty()) editor.Replace({0, 0}, step.text);
}

void Apply(const StripStep& step, std::string_view text, TextEditor& editor) {
  size_t begin = text.size(), end = 0;  // of what is not white space
  for (size_t i = 0; i < text.size();) {
    const Utf8Step character = ReadUtf8(text, i);
    if (!IsWhiteSpace(character.codepoint)) {
      begin = std::min(begin, i);
      end = i + character.length;
    }
    i += character.length;
  }
  if (step.left && begin > 0) editor.Replace({0, begin}, "");
  if (step.left) end = std::max(begin, end);
  if (step.right && end < text.size()) editor.Replace({end, text.size()}, "");
}

}  // namespace

absl::Status FindPattern(const std::variant<Regex, std::string>& pattern, std::string_view text,
                         std::vector<TextRange>& matches) {
  if (const auto* regex = std::get_if<Regex>(&pattern)) return regex->FindAll(text, matches);
  const std::string& literal = std::get<std::string>(pattern);
  for (size_t at = text.find(literal); at != std::string_view::npos; at = text.find(literal, at + literal.size())) {
    matches.push_back({at, at + literal.size()});
  }
  return absl::OkStatus();
}

NormalizedText::NormalizedText(std::string_view original, const Normalizer& normalizer) : original_(original) {
  for (const NormalizerStep& step : normalizer.steps()) {
    TextEditor editor(text());
    std::visit([&](const auto& kind) { Apply(kind, text(), editor); }, step);
    if (editor.edits().empty()) continue;
    storage_ = editor.Finish();
    edits_.push_back(std::move(editor.edits()));
  }
}

TextRange NormalizedText::ToOriginal(TextRange range) const {
  for (size_t i = edits_.size(); i > 0; --i) range = edits_[i - 1].ToOld(range);
  return range;
}

}  // namespace trimtab
