// Token ids to text as they arrive, never half a character. One per stream, on the egress pool; not thread-safe.
#ifndef TRIMTAB_MODELS_TOKENIZER_INCREMENTAL_DECODER_H_
#define TRIMTAB_MODELS_TOKENIZER_INCREMENTAL_DECODER_H_

#include <memory>
#include <string>

#include "models/tokenizer/tokenizer.h"

namespace trimtab {

// All that Push and Flush returned, joined, is what the ids add to the text of a prompt before them: Tokenizer::Decode
// of all ids, but for the space that SentencePiece leaves out before the first word of a text.
class IncrementalDecoder {
 public:
  IncrementalDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special);

  // The text that `id` completes; holds back at most 3 bytes that may be the beginning of a character.
  std::string Push(TokenId id);

  // What is still held back, as U+FFFD; empty when nothing is.
  std::string Flush();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  std::string held_;  // the incomplete character at the end
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_INCREMENTAL_DECODER_H_
