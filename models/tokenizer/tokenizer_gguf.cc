// Tokenizer::FromGguf: the vocabulary comes from the file, the rest of the pipeline from its name in `model` and `pre`.
#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/tokenizer_parts.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

// Values of tokenizer.ggml.token_type.
constexpr int32_t kUnknownType = 2, kControlType = 3, kUserDefinedType = 4;

// How SentencePiece writes a space.
constexpr std::string_view kSpace = "\u2581";

// Control tokens that conversions of Gemma and ChatML models call user-defined.
constexpr std::array<std::string_view, 6> kControlTexts = {"<start_of_turn>", "<end_of_turn>", "<start_of_image>",
                                                           "<end_of_image>",  "<|im_start|>",  "<|im_end|>"};

// A pre-tokenizer family, as in the tokenizer.json of its models.
struct Family {
  std::string_view pre;                     // tokenizer.ggml.pre
  std::array<std::string_view, 2> pattern;  // splits, each match on its own; empty: none
  bool nfc;
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
    {"smollm", {kDigitPattern, kGpt2Pattern}, false, false, false},
    {"gpt-2", {kGpt2Pattern, ""}, false, false, false},
    {"llama-bpe", {kLlama3Pattern, ""}, false, true, true},
    {"llama3", {kLlama3Pattern, ""}, false, true, true},
    {"llama-v3", {kLlama3Pattern, ""}, false, true, true},
    {"qwen2", {kQwen2Pattern, ""}, true, false, false},
}};

absl::StatusOr<const Family*> FindFamily(const std::string& pre) {
  std::string known;
  for (const Family& family : kFamilies) {
    if (family.pre == pre) return &family;
    absl::StrAppend(&known, known.empty() ? "" : ", ", std::string(family.pre));
  }
  return absl::UnimplementedError(
      absl::StrCat("tokenizer.ggml.pre \"", pre, "\" is not supported; supported are ", known));
}

// Files pad their vocabulary to the embedding's rows with "[PAD<id>]": no text of a user's means one.
bool IsPadding(const std::string& text, size_t id) { return text == absl::StrCat("[PAD", id, "]"); }

// The text of a user-defined token as the model's own vocabulary has it: files write its spaces out.
std::string WithSpaceMarks(const std::string& text) {
  return absl::StrReplaceAll(text, {{" ", absl::string_view(kSpace.data(), kSpace.size())}});
}

// Takes padding out of the vocabulary and notes control tokens and user-defined ones.
absl::Status ReadTypes(GgufVocabulary& vocabulary, TokenizerSpec& spec) {
  if (!vocabulary.token_types.empty() && vocabulary.token_types.size() != vocabulary.tokens.size()) {
    return TokenizerFileError("tokenizer.ggml.token_type and tokenizer.ggml.tokens differ in length");
  }
  for (size_t id = 0; id < vocabulary.token_types.size(); ++id) {
    std::string& text = vocabulary.tokens[id];
    const int32_t type = vocabulary.token_types[id];
    if (text.empty()) continue;
    if (IsPadding(text, id)) {
      text.clear();
      continue;
    }
    if (type == kUserDefinedType && !spec.byte_level) text = WithSpaceMarks(text);
    const bool special = type == kControlType || type == kUnknownType ||
                         (type == kUserDefinedType &&
                          std::find(kControlTexts.begin(), kControlTexts.end(), text) != kControlTexts.end());
    if (special || type == kUserDefinedType) {
      spec.added.push_back({.id = static_cast<TokenId>(id), .text = text, .special = special});
    }
  }
  return absl::OkStatus();
}

absl::Status ReadMerges(const std::vector<std::string>& merges, TokenizerSpec& spec) {
  spec.merges.reserve(merges.size());
  for (const std::string& merge : merges) {
    const size_t space = merge.find(' ', 1);
    if (merge.empty() || space == std::string::npos) {
      return TokenizerFileError(absl::StrCat("merge ", spec.merges.size(), " is not a pair"));
    }
    spec.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return absl::OkStatus();
}

absl::Status DescribeByteLevel(const GgufVocabulary& vocabulary, TokenizerSpec& spec, bool& add_bos) {
  TRIMTAB_ASSIGN_OR_RETURN(const Family* family, FindFamily(vocabulary.pre));
  TRIMTAB_RETURN_IF_ERROR(ReadMerges(vocabulary.merges, spec));
  for (const std::string_view pattern : family->pattern) {
    if (pattern.empty()) continue;
    TRIMTAB_ASSIGN_OR_RETURN(Regex regex, Regex::Create(pattern));
    spec.pre_tokenizer.emplace_back(SplitStep{.pattern = std::move(regex)});
  }
  spec.ignore_merges = family->ignore_merges;
  if (family->nfc) spec.normalizer.emplace_back(NormalForm::kNfc);
  add_bos = family->add_bos;
  return absl::OkStatus();
}

// As transformers converts a SentencePiece model of Llama or Gemma.
void DescribeSentencePiece(const GgufVocabulary& vocabulary, TokenizerSpec& spec) {
  spec.derive_merges = true;
  spec.scores.assign(vocabulary.scores.begin(), vocabulary.scores.end());
  for (size_t id = 0; id < spec.scores.size() && id < vocabulary.token_types.size(); ++id) {
    // Before all others; conversions write -1000.
    if (vocabulary.token_types[id] == kUserDefinedType) spec.scores[id] = 0.0;
  }
  spec.byte_fallback = true;
  spec.fuse_unknown = true;
  spec.unknown = vocabulary.unk;
  const std::string mark(kSpace);
  if (vocabulary.add_space_prefix) {
    spec.normalizer.emplace_back(PrependStep{mark});
    spec.decoder.strip = StripCharacterStep{.content = " ", .start = 1};
  }
  spec.normalizer.emplace_back(ReplaceStep{.pattern = std::string(" "), .content = mark});
  spec.decoder.steps.emplace_back(ReplaceStep{.pattern = mark, .content = " "});
  spec.decoder.byte_fallback = true;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::FromGguf(GgufVocabulary vocabulary) {
  TokenizerSpec spec;
  bool add_bos = true;
  if (vocabulary.model == "gpt2") {
    TRIMTAB_RETURN_IF_ERROR(DescribeByteLevel(vocabulary, spec, add_bos));
  } else if (vocabulary.model == "llama") {
    spec.byte_level = false;
    DescribeSentencePiece(vocabulary, spec);
  } else {
    return absl::UnimplementedError(
        absl::StrCat("tokenizer.ggml.model \"", vocabulary.model,
                     "\" is not supported; supported are gpt2 (byte-level BPE) and llama (SentencePiece BPE)"));
  }
  TRIMTAB_RETURN_IF_ERROR(ReadTypes(vocabulary, spec));
  spec.texts = std::move(vocabulary.tokens);
  spec.ids = {.bos = vocabulary.bos,
              .eos = vocabulary.eos,
              .pad = vocabulary.pad,
              .unk = vocabulary.unk,
              .end_of_generation = std::move(vocabulary.end_of_generation)};
  if (vocabulary.add_bos.value_or(add_bos) && spec.ids.bos) spec.ids.prompt_prefix = {*spec.ids.bos};
  TRIMTAB_ASSIGN_OR_RETURN(std::unique_ptr<const TokenizerParts> parts, BuildTokenizerParts(std::move(spec)));
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(parts)));
}

}  // namespace trimtab
