#include "models/tokenizer/text_edits.h"

#include <algorithm>
#include <utility>

namespace trimtab {

const TextEdits::Edit* TextEdits::At(size_t position) const {
  const auto after = std::upper_bound(edits_.begin(), edits_.end(), position,
                                      [](size_t value, const Edit& edit) { return value < edit.new_range.begin; });
  return after == edits_.begin() ? nullptr : &*(after - 1);
}

TextRange TextEdits::ToOld(TextRange range) const {
  if (edits_.empty()) return range;
  TextRange old = range;
  const Edit* first = At(range.begin);
  if (first != nullptr) {
    old.begin = range.begin < first->new_range.end ? first->old_range.begin
                                                   : first->old_range.end + (range.begin - first->new_range.end);
  }
  if (range.begin >= range.end) return {old.begin, old.begin};
  const Edit* last = At(range.end - 1);
  if (last != nullptr) {
    old.end = range.end <= last->new_range.end ? last->old_range.end
                                               : last->old_range.end + (range.end - last->new_range.end);
  }
  return old;
}

void TextEditor::Replace(TextRange range, std::string_view text) {
  new_text_ += old_text_.substr(done_, range.begin - done_);
  edits_.Add(range, {new_text_.size(), new_text_.size() + text.size()});
  new_text_ += text;
  done_ = range.end;
}

std::string TextEditor::Finish() {
  new_text_ += old_text_.substr(done_);
  done_ = old_text_.size();
  return std::move(new_text_);
}

}  // namespace trimtab
