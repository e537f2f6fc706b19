// The id of a token: its row in the model's embedding.
#ifndef TRIMTAB_MODELS_TOKENIZER_TOKEN_ID_H_
#define TRIMTAB_MODELS_TOKENIZER_TOKEN_ID_H_

#include <cstdint>

namespace trimtab {

using TokenId = int32_t;

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_TOKEN_ID_H_
