// Reads the vocabulary of a GGUF file (keys `tokenizer.ggml.*`). Any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_GGUF_VOCABULARY_H_
#define TRIMTAB_MODELS_TOKENIZER_GGUF_VOCABULARY_H_

#include "absl/status/statusor.h"
#include "models/tokenizer/tokenizer.h"
#include "models/weights/gguf.h"

namespace trimtab {

// INVALID_ARGUMENT (MODEL_FILE_INVALID) names a key that is missing or of another type.
absl::StatusOr<GgufVocabulary> ReadGgufVocabulary(const GgufFile& file);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_GGUF_VOCABULARY_H_
