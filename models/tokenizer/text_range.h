// A half-open range of bytes of a text. Any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_TEXT_RANGE_H_
#define TRIMTAB_MODELS_TOKENIZER_TEXT_RANGE_H_

#include <cstddef>

namespace trimtab {

struct TextRange {
  size_t begin = 0;
  size_t end = 0;  // one past the last byte

  bool operator==(const TextRange&) const = default;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_TEXT_RANGE_H_
