// What a Tokenizer is made of, and how its two front ends (tokenizer.json, GGUF) make it. Internal to this folder.
#ifndef TRIMTAB_MODELS_TOKENIZER_TOKENIZER_PARTS_H_
#define TRIMTAB_MODELS_TOKENIZER_TOKENIZER_PARTS_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "models/tokenizer/added_tokens.h"
#include "models/tokenizer/bpe.h"
#include "models/tokenizer/normalizer.h"
#include "models/tokenizer/pre_tokenizer.h"
#include "models/tokenizer/token_decoder.h"
#include "models/tokenizer/token_id.h"
#include "models/tokenizer/token_texts.h"
#include "models/tokenizer/unigram.h"

namespace trimtab {

// The tokens with a role of their own.
struct SpecialIds {
  std::optional<TokenId> bos, eos, pad, unk;
  std::vector<TokenId> prompt_prefix;      // before a raw prompt
  std::vector<TokenId> end_of_generation;  // beside eos and the well-known texts
};

// A tokenizer as a file describes it, before it is checked.
struct TokenizerSpec {
  enum class Model { kBpe, kUnigram };

  std::vector<std::string> texts;  // by id, as the file writes them; empty: no such token
  std::vector<AddedToken> added;
  Model model = Model::kBpe;
  // The texts are in the byte alphabet and pieces are taken byte by byte; otherwise by characters.
  bool byte_level = true;
  std::vector<std::pair<std::string, std::string>> merges;  // lowest rank first
  bool derive_merges = false;                               // from the scores, in place of `merges`
  std::vector<double> scores;                               // by id, for kUnigram and derive_merges
  bool ignore_merges = false;
  bool byte_fallback = false;      // "<0x00>" to "<0xFF>" stand for bytes that no other token holds
  std::optional<TokenId> unknown;  // for what is still left
  bool fuse_unknown = false;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  TokenDecoderOptions decoder;
  SpecialIds ids;
};

struct TokenizerParts {
  TokenTexts texts;                                     // with byte_level the tokens' bytes
  std::vector<bool> special;                            // by id
  absl::flat_hash_map<std::string, TokenId> added_ids;  // by text
  std::variant<Bpe, Unigram> model;                     // refers to `texts`
  PreTokenizer pre_tokenizer;
  Normalizer normalizer;
  TokenDecoder decoder;
  AddedTokenMatcher raw_added;
  AddedTokenMatcher normalized_added;
  AddedTokenMatcher special_texts;             // the control tokens' texts, wherever they stand
  AddedTokenMatcher normalized_special_texts;  // those that are looked for in the normalised text
  SpecialIds ids;
};

inline constexpr size_t kMaxVocabulary = size_t{1} << 20;
inline constexpr size_t kMaxMerges = size_t{1} << 22;
inline constexpr size_t kMaxTokenBytes = 16 * 1024;
inline constexpr size_t kMaxSplitTokenBytes = 512;  // with derive_merges
inline constexpr size_t kMaxAddedTokenBytes = 1024;

// Checks `spec` and builds. INVALID_ARGUMENT (MODEL_FILE_INVALID) beyond the limits above, for ids out of range, for
// merges of unknown tokens and for scores that are missing or no numbers.
absl::StatusOr<std::unique_ptr<const TokenizerParts>> BuildTokenizerParts(TokenizerSpec spec);

// INVALID_ARGUMENT with MODEL_FILE_INVALID; the message says "tokenizer: ...".
absl::Status TokenizerFileError(std::string_view message);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_TOKENIZER_PARTS_H_
