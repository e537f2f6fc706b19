#include "models/tokenizer/tokenizer_parts.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "models/tokenizer/byte_alphabet.h"
#include "models/tokenizer/spm_merges.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

// Control tokens that end an answer whatever a file says of them.
constexpr std::array<std::string_view, 10> kEndOfGeneration = {
    "<|im_end|>",    "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>",
    "<end_of_turn>", "<|eot|>",    "</s>",       "<|return|>"};

using TextIds = absl::flat_hash_map<absl::string_view, TokenId>;

absl::Status CheckLimits(const TokenizerSpec& spec) {
  if (spec.texts.size() > kMaxVocabulary || spec.added.size() > kMaxVocabulary) {
    return TokenizerFileError(absl::StrCat("vocabulary of more than ", kMaxVocabulary, " tokens"));
  }
  if (spec.merges.size() > kMaxMerges) return TokenizerFileError(absl::StrCat("more than ", kMaxMerges, " merges"));
  // Deriving merges takes work of the square of a token's length.
  const size_t max_bytes = spec.derive_merges ? kMaxSplitTokenBytes : kMaxTokenBytes;
  for (size_t id = 0; id < spec.texts.size(); ++id) {
    if (spec.texts[id].size() > max_bytes) return TokenizerFileError(absl::StrCat("token ", id, " is too long"));
  }
  for (const AddedToken& token : spec.added) {
    if (token.id < 0 || static_cast<size_t>(token.id) >= kMaxVocabulary) {
      return TokenizerFileError(absl::StrCat("added token id ", token.id, " is out of range"));
    }
    if (token.text.empty() || token.text.size() > kMaxAddedTokenBytes) {
      return TokenizerFileError(absl::StrCat("added token ", token.id, " is empty or too long"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckId(std::optional<TokenId> id, const std::vector<std::string>& texts, std::string_view name) {
  if (!id || (*id >= 0 && static_cast<size_t>(*id) < texts.size() && !texts[*id].empty())) return absl::OkStatus();
  return TokenizerFileError(absl::StrCat(std::string(name), " id ", *id, " is not in the vocabulary"));
}

absl::StatusOr<std::vector<BpeMerge>> ResolveMerges(const TokenizerSpec& spec, const std::vector<bool>& special) {
  TextIds text_ids;
  text_ids.reserve(spec.texts.size());
  for (size_t id = 0; id < spec.texts.size(); ++id) text_ids[spec.texts[id]] = static_cast<TokenId>(id);
  std::vector<BpeMerge> merges;
  merges.reserve(spec.merges.size());
  for (const auto& [left, right] : spec.merges) {
    const auto left_id = text_ids.find(left), right_id = text_ids.find(right);
    const auto merged_id = text_ids.find(absl::StrCat(left, right));
    if (left_id == text_ids.end() || right_id == text_ids.end() || merged_id == text_ids.end()) {
      return TokenizerFileError(absl::StrCat("merge ", merges.size(), " uses a token that is not in the vocabulary"));
    }
    merges.push_back({left_id->second, right_id->second, merged_id->second});
  }
  // Text reaches control tokens through AddedTokenMatcher only. Ranks are only compared, so gaps do no harm.
  std::erase_if(merges, [&](const BpeMerge& merge) { return special[merge.merged]; });
  return merges;
}

// Gives added tokens their place in the vocabulary. As in the reference, the id of a text that the vocabulary already
// holds counts before the one that the added token names.
absl::Status PlaceAddedTokens(TokenizerSpec& spec) {
  const auto is_placed = [&](const AddedToken& token) {
    return static_cast<size_t>(token.id) < spec.texts.size() && spec.texts[token.id] == token.text;
  };
  if (std::all_of(spec.added.begin(), spec.added.end(), is_placed)) return absl::OkStatus();
  absl::flat_hash_map<std::string, TokenId> known;
  for (size_t id = 0; id < spec.texts.size(); ++id) known[spec.texts[id]] = static_cast<TokenId>(id);
  for (AddedToken& token : spec.added) {
    if (const auto found = known.find(token.text); found != known.end()) {
      token.id = found->second;
      continue;
    }
    if (static_cast<size_t>(token.id) >= spec.texts.size()) spec.texts.resize(token.id + 1);
    if (!spec.texts[token.id].empty()) {
      return TokenizerFileError(absl::StrCat("added token id ", token.id, " belongs to another token"));
    }
    spec.texts[token.id] = token.text;
    known[token.text] = token.id;
  }
  return absl::OkStatus();
}

absl::Status CheckIds(const TokenizerSpec& spec) {
  for (const auto& [id, name] :
       {std::pair{spec.ids.bos, "bos"}, std::pair{spec.ids.eos, "eos"}, std::pair{spec.ids.pad, "pad"},
        std::pair{spec.ids.unk, "unk"}, std::pair{spec.unknown, "unknown"}}) {
    TRIMTAB_RETURN_IF_ERROR(CheckId(id, spec.texts, name));
  }
  for (const TokenId id : spec.ids.end_of_generation) {
    TRIMTAB_RETURN_IF_ERROR(CheckId(id, spec.texts, "end-of-generation"));
  }
  for (const TokenId id : spec.ids.prompt_prefix) TRIMTAB_RETURN_IF_ERROR(CheckId(id, spec.texts, "prompt prefix"));
  return absl::OkStatus();
}

absl::Status CheckScores(const TokenizerSpec& spec) {
  if (spec.model != TokenizerSpec::Model::kUnigram && !spec.derive_merges) return absl::OkStatus();
  if (spec.scores.size() != spec.texts.size()) {
    return TokenizerFileError(
        absl::StrCat("there are ", spec.texts.size(), " tokens, but ", spec.scores.size(), " scores"));
  }
  for (size_t id = 0; id < spec.scores.size(); ++id) {
    if (!std::isfinite(spec.scores[id]))
      return TokenizerFileError(absl::StrCat("the score of token ", id, " is no number"));
  }
  return absl::OkStatus();
}

// The added tokens, sorted by how they are looked for.
struct AddedTokens {
  std::vector<AddedToken> raw, normalized, special_texts, normalized_special_texts;
  absl::flat_hash_map<std::string, TokenId> ids;  // by text
  std::vector<bool> special;                      // by token id
  std::vector<TokenId> end_of_generation;
};

AddedTokens SortAddedTokens(const TokenizerSpec& spec, const Normalizer& normalizer) {
  AddedTokens sorted;
  sorted.special.resize(spec.texts.size());
  for (const AddedToken& token : spec.added) {
    if (!sorted.ids.emplace(token.text, token.id).second) continue;
    const bool normalizes = token.normalized && !normalizer.empty();
    AddedToken matched = token;
    if (normalizes) matched.text = std::string(NormalizedText(token.text, normalizer).text());
    if (token.special) {
      sorted.special[token.id] = true;
      sorted.special_texts.push_back({.id = token.id, .text = token.text, .special = true});
      if (normalizes && !matched.text.empty()) {
        sorted.normalized_special_texts.push_back({.id = token.id, .text = matched.text, .special = true});
      }
      if (std::find(kEndOfGeneration.begin(), kEndOfGeneration.end(), token.text) != kEndOfGeneration.end()) {
        sorted.end_of_generation.push_back(token.id);
      }
    }
    if (!matched.text.empty()) (token.normalized ? sorted.normalized : sorted.raw).push_back(std::move(matched));
  }
  return sorted;
}

ByteTokens FindByteTokens(const TokenizerSpec& spec, const TokenTexts& texts) {
  ByteTokens tokens = kNoByteTokens;
  if (!spec.byte_fallback) return tokens;
  for (size_t id = 0; id < texts.size(); ++id) {
    const std::string_view text = texts[static_cast<TokenId>(id)];
    const auto byte = ParseByteToken(text);
    if (byte && text == ByteTokenText(*byte)) tokens[*byte] = static_cast<TokenId>(id);
  }
  return tokens;
}

}  // namespace

absl::Status TokenizerFileError(std::string_view message) {
  return ReasonError(absl::StatusCode::kInvalidArgument, kModelFileInvalid,
                     absl::StrCat("tokenizer: ", std::string(message)));
}

absl::StatusOr<std::unique_ptr<const TokenizerParts>> BuildTokenizerParts(TokenizerSpec spec) {
  TRIMTAB_RETURN_IF_ERROR(CheckLimits(spec));
  TRIMTAB_RETURN_IF_ERROR(CheckScores(spec));
  const size_t model_vocabulary = spec.texts.size();
  TRIMTAB_RETURN_IF_ERROR(PlaceAddedTokens(spec));
  TRIMTAB_RETURN_IF_ERROR(CheckIds(spec));
  Normalizer normalizer(std::move(spec.normalizer));
  AddedTokens added = SortAddedTokens(spec, normalizer);
  SpecialIds ids = std::move(spec.ids);
  if (ids.eos) ids.end_of_generation.push_back(*ids.eos);
  ids.end_of_generation.insert(ids.end_of_generation.end(), added.end_of_generation.begin(),
                               added.end_of_generation.end());
  std::sort(ids.end_of_generation.begin(), ids.end_of_generation.end());
  ids.end_of_generation.erase(std::unique(ids.end_of_generation.begin(), ids.end_of_generation.end()),
                              ids.end_of_generation.end());

  size_t bytes = 0;
  for (const std::string& text : spec.texts) bytes += text.size();
  TokenTexts texts(spec.texts.size(), bytes);
  TokensByText tokens;
  tokens.reserve(model_vocabulary);
  for (size_t i = 0; i < spec.texts.size(); ++i) {
    const std::string& text = spec.texts[i];
    const std::optional<std::string> decoded = spec.byte_level ? DecodeByteAlphabet(text) : text;
    texts.Add(decoded.value_or(text));
    if (i >= model_vocabulary || text.empty() || !decoded || added.special[i]) continue;
    const std::string_view stored = texts[static_cast<TokenId>(i)];
    tokens[{stored.data(), stored.size()}] = static_cast<TokenId>(i);
  }
  const ByteTokens byte_tokens = FindByteTokens(spec, texts);
  const auto build_model = [&]() -> absl::StatusOr<std::variant<Bpe, Unigram>> {
    if (spec.model == TokenizerSpec::Model::kUnigram) {
      return Unigram(std::move(tokens), std::move(spec.scores),
                     {.byte_fallback = byte_tokens, .unknown = spec.unknown});
    }
    std::vector<BpeMerge> merges;
    if (spec.derive_merges) {
      for (size_t byte = 0; byte < byte_tokens.size(); ++byte) {
        tokens.erase(ByteTokenText(static_cast<unsigned char>(byte)));
      }
      merges = DeriveMerges(tokens, spec.scores);
    } else {
      TRIMTAB_ASSIGN_OR_RETURN(merges, ResolveMerges(spec, added.special));
    }
    return Bpe(std::move(tokens), merges,
               {.byte_level = spec.byte_level,
                .ignore_merges = spec.ignore_merges,
                .byte_fallback = byte_tokens,
                .unknown = spec.unknown,
                .fuse_unknown = spec.fuse_unknown});
  };
  TRIMTAB_ASSIGN_OR_RETURN(auto model, build_model());
  return std::unique_ptr<const TokenizerParts>(
      new TokenizerParts{.texts = std::move(texts),
                         .special = std::move(added.special),
                         .added_ids = std::move(added.ids),
                         .model = std::move(model),
                         .pre_tokenizer = PreTokenizer(std::move(spec.pre_tokenizer)),
                         .normalizer = std::move(normalizer),
                         .decoder = TokenDecoder(std::move(spec.decoder)),
                         .raw_added = AddedTokenMatcher(std::move(added.raw)),
                         .normalized_added = AddedTokenMatcher(std::move(added.normalized)),
                         .special_texts = AddedTokenMatcher(std::move(added.special_texts)),
                         .normalized_special_texts = AddedTokenMatcher(std::move(added.normalized_special_texts)),
                         .ids = std::move(ids)});
}

}  // namespace trimtab
