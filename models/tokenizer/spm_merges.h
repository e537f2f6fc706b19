// The merges of a SentencePiece BPE vocabulary, which files hold as scores alone. Any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_SPM_MERGES_H_
#define TRIMTAB_MODELS_TOKENIZER_SPM_MERGES_H_

#include <vector>

#include "models/tokenizer/bpe.h"
#include "models/tokenizer/piece_token.h"

namespace trimtab {

// Every way to write a token of `tokens` as two others, the token of the highest score first; among equal scores the
// way with the longer left part, then the longer right part (in characters), as transformers' conversion orders them:
// runs of one character then grow from the left. `scores` are by id.
std::vector<BpeMerge> DeriveMerges(const TokensByText& tokens, const std::vector<double>& scores);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_SPM_MERGES_H_
