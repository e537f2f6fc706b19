#include "models/tokenizer/gguf_vocabulary.h"

#include <limits>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/weights/file_error.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

absl::StatusOr<std::optional<TokenId>> OptionalToken(const GgufFile& file, std::string_view key) {
  if (!file.Has(key)) return std::optional<TokenId>();
  TRIMTAB_ASSIGN_OR_RETURN(const int64_t value, file.GetInt(key));
  if (value < 0 || value > std::numeric_limits<TokenId>::max()) {
    return ModelFileError(file.path(), absl::StrCat("key ", QuoteName(key), " is not a token id"));
  }
  return std::optional<TokenId>(static_cast<TokenId>(value));
}

absl::StatusOr<std::vector<std::string>> OptionalStrings(const GgufFile& file, std::string_view key) {
  if (!file.Has(key)) return std::vector<std::string>();
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<std::string_view> texts, file.GetStrings(key));
  return std::vector<std::string>(texts.begin(), texts.end());
}

}  // namespace

absl::StatusOr<GgufVocabulary> ReadGgufVocabulary(const GgufFile& file) {
  GgufVocabulary vocabulary;
  TRIMTAB_ASSIGN_OR_RETURN(vocabulary.model, file.GetString("tokenizer.ggml.model"));
  TRIMTAB_ASSIGN_OR_RETURN(vocabulary.pre, file.GetStringOr("tokenizer.ggml.pre", "default"));
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<std::string_view> tokens, file.GetStrings("tokenizer.ggml.tokens"));
  vocabulary.tokens.assign(tokens.begin(), tokens.end());
  if (file.Has("tokenizer.ggml.token_type")) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::vector<int64_t> types, file.GetInts("tokenizer.ggml.token_type"));
    vocabulary.token_types.assign(types.begin(), types.end());
  }
  TRIMTAB_ASSIGN_OR_RETURN(vocabulary.merges, OptionalStrings(file, "tokenizer.ggml.merges"));
  if (file.Has("tokenizer.ggml.scores")) {
    TRIMTAB_ASSIGN_OR_RETURN(vocabulary.scores, file.GetFloats("tokenizer.ggml.scores"));
  }
  TRIMTAB_ASSIGN_OR_RETURN(vocabulary.bos, OptionalToken(file, "tokenizer.ggml.bos_token_id"));
  TRIMTAB_ASSIGN_OR_RETURN(vocabulary.eos, OptionalToken(file, "tokenizer.ggml.eos_token_id"));
  TRIMTAB_ASSIGN_OR_RETURN(vocabulary.pad, OptionalToken(file, "tokenizer.ggml.padding_token_id"));
  TRIMTAB_ASSIGN_OR_RETURN(vocabulary.unk, OptionalToken(file, "tokenizer.ggml.unknown_token_id"));
  for (const std::string_view key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::optional<TokenId> id, OptionalToken(file, key));
    if (id) vocabulary.end_of_generation.push_back(*id);
  }
  if (file.Has("tokenizer.ggml.add_bos_token")) {
    TRIMTAB_ASSIGN_OR_RETURN(vocabulary.add_bos, file.GetBool("tokenizer.ggml.add_bos_token"));
  }
  TRIMTAB_ASSIGN_OR_RETURN(vocabulary.add_space_prefix, file.GetBoolOr("tokenizer.ggml.add_space_prefix", true));
  return vocabulary;
}

}  // namespace trimtab
