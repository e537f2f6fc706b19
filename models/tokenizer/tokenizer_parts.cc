#include "models/tokenizer/tokenizer_parts.h"

#include <algorithm>
#include <array>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "models/tokenizer/byte_alphabet.h"
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
  for (size_t id = 0; id < spec.texts.size(); ++id) {
    if (spec.texts[id].size() > kMaxTokenBytes) return TokenizerFileError(absl::StrCat("token ", id, " is too long"));
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

absl::StatusOr<std::vector<BpeMerge>> ResolveMerges(const TokenizerSpec& spec, const TextIds& text_ids,
                                                    const std::vector<bool>& special) {
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

}  // namespace

absl::Status TokenizerFileError(std::string_view message) {
  return ReasonError(absl::StatusCode::kInvalidArgument, kModelFileInvalid,
                     absl::StrCat("tokenizer: ", std::string(message)));
}

absl::StatusOr<std::unique_ptr<const TokenizerParts>> BuildTokenizerParts(TokenizerSpec spec) {
  TRIMTAB_RETURN_IF_ERROR(CheckLimits(spec));
  const size_t model_vocabulary = spec.texts.size();
  TRIMTAB_RETURN_IF_ERROR(PlaceAddedTokens(spec));
  for (const auto& [id, name] :
       {std::pair{spec.ids.bos, "bos"}, std::pair{spec.ids.eos, "eos"}, std::pair{spec.ids.pad, "pad"},
        std::pair{spec.ids.unk, "unk"}, std::pair{spec.unknown, "unknown"}}) {
    TRIMTAB_RETURN_IF_ERROR(CheckId(id, spec.texts, name));
  }
  for (const TokenId id : spec.ids.end_of_generation) {
    TRIMTAB_RETURN_IF_ERROR(CheckId(id, spec.texts, "end-of-generation"));
  }

  std::vector<bool> special(spec.texts.size(), false);
  absl::flat_hash_map<std::string, TokenId> added_ids;
  std::vector<AddedToken> raw_added, normalized_added, special_texts;
  SpecialIds ids = spec.ids;
  if (ids.eos) ids.end_of_generation.push_back(*ids.eos);
  for (const AddedToken& token : spec.added) {
    if (!added_ids.emplace(token.text, token.id).second) continue;
    if (token.special) {
      special[token.id] = true;
      special_texts.push_back({.id = token.id, .text = token.text, .special = true});
      if (std::find(kEndOfGeneration.begin(), kEndOfGeneration.end(), token.text) != kEndOfGeneration.end()) {
        ids.end_of_generation.push_back(token.id);
      }
    }
    if (token.normalized && spec.normalization == Normalization::kNfc) {
      AddedToken normalized = token;
      normalized.text = ToNfc(token.text);
      normalized_added.push_back(std::move(normalized));
    } else {
      (token.normalized ? normalized_added : raw_added).push_back(token);
    }
  }
  std::sort(ids.end_of_generation.begin(), ids.end_of_generation.end());
  ids.end_of_generation.erase(std::unique(ids.end_of_generation.begin(), ids.end_of_generation.end()),
                              ids.end_of_generation.end());

  TextIds text_ids;
  absl::flat_hash_map<std::string, TokenId> bpe_tokens;
  std::vector<std::string> bytes(spec.texts.size());
  text_ids.reserve(model_vocabulary);
  bpe_tokens.reserve(model_vocabulary);
  for (size_t i = 0; i < spec.texts.size(); ++i) {
    const TokenId id = static_cast<TokenId>(i);
    const std::string& text = spec.texts[i];
    if (text.empty()) continue;
    const std::optional<std::string> decoded = DecodeByteAlphabet(text);
    if (i < model_vocabulary) {
      text_ids[text] = id;
      if (decoded && !special[i]) bpe_tokens[*decoded] = id;
    }
    bytes[i] = decoded.value_or(text);
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<BpeMerge> merges, ResolveMerges(spec, text_ids, special));
  const BpeOptions options{
      .ignore_merges = spec.ignore_merges, .unknown = spec.unknown, .fuse_unknown = spec.fuse_unknown};
  return std::unique_ptr<const TokenizerParts>(
      new TokenizerParts{.bytes = std::move(bytes),
                         .special = std::move(special),
                         .added_ids = std::move(added_ids),
                         .bpe = Bpe(std::move(bpe_tokens), merges, options),
                         .pre_tokenizer = PreTokenizer(std::move(spec.pre_tokenizer)),
                         .normalization = spec.normalization,
                         .raw_added = AddedTokenMatcher(std::move(raw_added)),
                         .normalized_added = AddedTokenMatcher(std::move(normalized_added)),
                         .special_texts = AddedTokenMatcher(std::move(special_texts)),
                         .ids = std::move(ids)});
}

}  // namespace trimtab
