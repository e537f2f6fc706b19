#include "models/tokenizer/incremental_decoder.h"

#include <utility>

#include "models/tokenizer/utf8.h"

namespace trimtab {

IncrementalDecoder::IncrementalDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

std::string IncrementalDecoder::Push(TokenId id) {
  if (skip_special_ && tokenizer_->IsSpecial(id)) return "";
  held_ += tokenizer_->TokenBytes(id);
  std::string text;
  held_.erase(0, AppendCompleteUtf8(held_, text, tokenizer_->broken_utf8()));
  return text;
}

std::string IncrementalDecoder::Flush() {
  std::string text = ReplaceInvalidUtf8(held_, tokenizer_->broken_utf8());
  held_.clear();
  return text;
}

}  // namespace trimtab
