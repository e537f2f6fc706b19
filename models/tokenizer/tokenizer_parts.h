// What a Tokenizer is made of, and how its two front ends (tokenizer.json, GGUF) make it. Internal to this folder.
#ifndef TRIMTAB_MODELS_TOKENIZER_TOKENIZER_PARTS_H_
#define TRIMTAB_MODELS_TOKENIZER_TOKENIZER_PARTS_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "models/tokenizer/added_tokens.h"
#include "models/tokenizer/bpe.h"
#include "models/tokenizer/normalizer.h"
#include "models/tokenizer/pre_tokenizer.h"
#include "models/tokenizer/token_id.h"

namespace trimtab {

// The tokens with a role of their own.
struct SpecialIds {
  std::optional<TokenId> bos, eos, pad, unk;
  bool add_bos = false;
  std::vector<TokenId> end_of_generation;  // beside eos and the well-known texts
};

// A tokenizer as a file describes it, before it is checked.
struct TokenizerSpec {
  std::vector<std::string> texts;  // by id, in the byte alphabet; empty: no such token
  std::vector<AddedToken> added;
  std::vector<std::pair<std::string, std::string>> merges;  // lowest rank first
  bool ignore_merges = false;
  std::optional<TokenId> unknown;  // for bytes that no token holds
  bool fuse_unknown = false;
  Normalization normalization = Normalization::kNone;
  std::vector<PreTokenizerStep> pre_tokenizer;
  SpecialIds ids;
};

struct TokenizerParts {
  std::vector<std::string> bytes;                       // of each token, by id
  std::vector<bool> special;                            // by id
  absl::flat_hash_map<std::string, TokenId> added_ids;  // by text
  Bpe bpe;
  PreTokenizer pre_tokenizer;
  Normalization normalization;
  AddedTokenMatcher raw_added;
  AddedTokenMatcher normalized_added;
  AddedTokenMatcher special_texts;  // the control tokens' texts, wherever they stand
  SpecialIds ids;
};

inline constexpr size_t kMaxVocabulary = size_t{1} << 20;
inline constexpr size_t kMaxMerges = size_t{1} << 22;
inline constexpr size_t kMaxTokenBytes = 16 * 1024;
inline constexpr size_t kMaxAddedTokenBytes = 1024;

// Checks `spec` and builds. INVALID_ARGUMENT (MODEL_FILE_INVALID) beyond the limits above, for ids out of range, and
// for merges of unknown tokens.
absl::StatusOr<std::unique_ptr<const TokenizerParts>> BuildTokenizerParts(TokenizerSpec spec);

// INVALID_ARGUMENT with MODEL_FILE_INVALID; the message says "tokenizer: ...".
absl::Status TokenizerFileError(std::string_view message);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_TOKENIZER_PARTS_H_
