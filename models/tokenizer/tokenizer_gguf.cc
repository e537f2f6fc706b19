// Tokenizer::FromGguf: vocabulary and merges come from the file, the rest of the pipeline from its name in `pre`.
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/tokenizer_parts.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

// Values of tokenizer.ggml.token_type.
constexpr int32_t kUnknownType = 2, kControlType = 3, kUserDefinedType = 4;

// A pre-tokenizer family, as in the tokenizer.json of its models.
struct Family {
  std::string_view pre;                     // tokenizer.ggml.pre
  std::array<std::string_view, 2> pattern;  // splits, each match on its own; empty: none
  Normalization normalization;
  bool ignore_merges;
  bool add_bos;
};

constexpr std::string_view kLlama3Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kQwen2Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kDigitPattern = "\\p{N}";

const std::array<Family, 6> kFamilies = {{
    {"smollm", {kDigitPattern, kGpt2Pattern}, Normalization::kNone, false, false},
    {"gpt-2", {kGpt2Pattern, ""}, Normalization::kNone, false, false},
    {"llama-bpe", {kLlama3Pattern, ""}, Normalization::kNone, true, true},
    {"llama3", {kLlama3Pattern, ""}, Normalization::kNone, true, true},
    {"llama-v3", {kLlama3Pattern, ""}, Normalization::kNone, true, true},
    {"qwen2", {kQwen2Pattern, ""}, Normalization::kNfc, false, false},
}};

absl::StatusOr<const Family*> FindFamily(const GgufVocabulary& vocabulary) {
  if (vocabulary.model != "gpt2") {
    const std::string kind = vocabulary.model == "llama" ? "llama (SentencePiece)" : vocabulary.model;
    return absl::UnimplementedError(
        absl::StrCat("tokenizer model \"", kind, "\" is not supported: only byte-level BPE (\"gpt2\") is"));
  }
  std::string known;
  for (const Family& family : kFamilies) {
    if (family.pre == vocabulary.pre) return &family;
    absl::StrAppend(&known, known.empty() ? "" : ", ", std::string(family.pre));
  }
  return absl::UnimplementedError(
      absl::StrCat("tokenizer.ggml.pre \"", vocabulary.pre, "\" is not supported; supported are ", known));
}

// Files pad their vocabulary to the embedding's rows with "[PAD<id>]": no text of a user's means one.
bool IsPadding(const std::string& text, size_t id) { return text == absl::StrCat("[PAD", id, "]"); }

}  // namespace

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::FromGguf(GgufVocabulary vocabulary) {
  TRIMTAB_ASSIGN_OR_RETURN(const Family* family, FindFamily(vocabulary));
  if (!vocabulary.token_types.empty() && vocabulary.token_types.size() != vocabulary.tokens.size()) {
    return TokenizerFileError("tokenizer.ggml.token_type and tokenizer.ggml.tokens differ in length");
  }
  TokenizerSpec spec;
  for (size_t id = 0; id < vocabulary.token_types.size(); ++id) {
    std::string& text = vocabulary.tokens[id];
    const int32_t type = vocabulary.token_types[id];
    const bool special = type == kControlType || type == kUnknownType;
    if (text.empty()) continue;
    if (IsPadding(text, id)) {
      text.clear();
    } else if (special || type == kUserDefinedType) {
      spec.added.push_back({.id = static_cast<TokenId>(id), .text = text, .special = special});
    }
  }
  spec.texts = std::move(vocabulary.tokens);
  spec.merges.reserve(vocabulary.merges.size());
  for (const std::string& merge : vocabulary.merges) {
    const size_t space = merge.find(' ', 1);
    if (merge.empty() || space == std::string::npos) {
      return TokenizerFileError(absl::StrCat("merge ", spec.merges.size(), " is not a pair"));
    }
    spec.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  for (const std::string_view pattern : family->pattern) {
    if (pattern.empty()) continue;
    TRIMTAB_ASSIGN_OR_RETURN(Regex regex, Regex::Create(pattern));
    spec.pre_tokenizer.push_back(SplitStep{.pattern = std::move(regex)});
  }
  spec.ignore_merges = family->ignore_merges;
  spec.normalization = family->normalization;
  spec.ids = {.bos = vocabulary.bos,
              .eos = vocabulary.eos,
              .pad = vocabulary.pad,
              .unk = vocabulary.unk,
              .add_bos = vocabulary.add_bos.value_or(family->add_bos)};
  TRIMTAB_ASSIGN_OR_RETURN(std::unique_ptr<const TokenizerParts> parts, BuildTokenizerParts(std::move(spec)));
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(parts)));
}

}  // namespace trimtab
