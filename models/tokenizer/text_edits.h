// How a text became another one, so that places in the new text can be found in the old. Not thread-safe while it is
// being built; then any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_TEXT_EDITS_H_
#define TRIMTAB_MODELS_TOKENIZER_TEXT_EDITS_H_

#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer/text_range.h"

namespace trimtab {

// A list of replaced parts; what lies between them is the same in both texts.
class TextEdits {
 public:
  // The bytes `old_range` of the old text became `new_range` of the new one. In ascending order, without overlaps.
  void Add(TextRange old_range, TextRange new_range) { edits_.push_back({old_range, new_range}); }

  // The bytes of the old text from which `range` of the new text came: wider than exact where it cuts through a
  // replaced part.
  TextRange ToOld(TextRange range) const;

  bool empty() const { return edits_.empty(); }

 private:
  struct Edit {
    TextRange old_range, new_range;
  };

  // The last edit that begins at or before `position` of the new text; null if none.
  const Edit* At(size_t position) const;

  std::vector<Edit> edits_;
};

// Builds a new text from an old one, left to right, and notes the edits.
class TextEditor {
 public:
  // `old_text` must outlive the editor.
  explicit TextEditor(std::string_view old_text) : old_text_(old_text) { new_text_.reserve(old_text.size()); }

  // Replaces `range` of the old text; what stands before it stays. Ranges come in ascending order.
  void Replace(TextRange range, std::string_view text);
  // Ends: the rest of the old text stays.
  std::string Finish();

  TextEdits& edits() { return edits_; }

 private:
  std::string_view old_text_;
  size_t done_ = 0;  // of the old text
  std::string new_text_;
  TextEdits edits_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_TEXT_EDITS_H_
