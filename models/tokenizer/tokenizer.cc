#include "models/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "models/tokenizer/tokenizer_parts.h"
#include "models/tokenizer/utf8.h"
#include "server/base/log.h"

namespace trimtab {
namespace {

absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }

bool Touches(absl::Span<const TextRange> ranges, TextRange range) {
  const auto first = std::partition_point(ranges.begin(), ranges.end(),
                                          [&](const TextRange& other) { return other.end <= range.begin; });
  return first != ranges.end() && first->begin < range.end;
}

// One run of the pipeline over one text.
class Encoding {
 public:
  // `text` is valid UTF-8. Ranges are noted only if `with_ranges`.
  Encoding(const TokenizerParts& parts, std::string_view text, absl::Span<const TextRange> plain, bool with_ranges)
      : parts_(parts), text_(text), plain_(plain), with_ranges_(with_ranges) {}

  TokenizedText Run() {
    const auto is_plain = [this](TextRange range) { return Touches(plain_, range); };
    for (const AddedTokenSection& section : parts_.raw_added.Split(text_, is_plain)) {
      if (section.id) {
        Append(*section.id, section.range);
      } else {
        EncodeStretch(section.range);
      }
    }
    return std::move(result_);
  }

 private:
  void Append(TokenId id, TextRange range) {
    result_.ids.push_back(id);
    if (with_ranges_) result_.ranges.push_back(range);
  }

  // A stretch of the text that holds no raw added token.
  void EncodeStretch(TextRange stretch) {
    const NormalizedText source(text_.substr(stretch.begin, stretch.end - stretch.begin), parts_.normalizer);
    const auto original = [&](TextRange range) {
      const TextRange mapped = source.ToOriginal(range);
      return TextRange{stretch.begin + mapped.begin, stretch.begin + mapped.end};
    };
    if (parts_.normalized_added.empty()) {
      EncodeOrdinary(source.text(), original, 0);
      return;
    }
    const auto is_plain = [&](TextRange range) { return Touches(plain_, original(range)); };
    for (const AddedTokenSection& section : parts_.normalized_added.Split(source.text(), is_plain)) {
      if (section.id) {
        Append(*section.id, original(section.range));
      } else {
        EncodeOrdinary(source.text().substr(section.range.begin, section.range.end - section.range.begin), original,
                       section.range.begin);
      }
    }
  }

  // Normalised text without added tokens; `original` maps its ranges, shifted by `offset`, to those of the text.
  template <typename ToOriginal>
  void EncodeOrdinary(std::string_view text, const ToOriginal& original, size_t offset) {
    const bool is_start = original(TextRange{offset, offset + text.size()}).begin == 0;
    const absl::Status status = parts_.pre_tokenizer.Split(text, is_start, pieces_);
    if (!status.ok()) {
      LogError("a stretch of text was not split for tokenising",
               {{"reason", std::string(status.message())}, {"bytes", absl::StrCat(text.size())}});
    }
    for (const Piece& piece : pieces_.pieces) {
      tokens_.clear();
      std::visit([&](const auto& model) { model.Encode(piece.text, tokens_); }, parts_.model);
      for (const PieceToken& token : tokens_) {
        result_.ids.push_back(token.id);
        if (!with_ranges_) continue;
        const TextRange place = piece.ToSource(token.range);
        result_.ranges.push_back(original(TextRange{offset + place.begin, offset + place.end}));
      }
    }
  }

  const TokenizerParts& parts_;
  const std::string_view text_;
  const absl::Span<const TextRange> plain_;
  const bool with_ranges_;
  TokenizedText result_;
  PreTokenizer::Pieces pieces_;
  std::vector<PieceToken> tokens_;
};

TokenizedText Run(const TokenizerParts& parts, std::string_view text, absl::Span<const TextRange> plain,
                  bool with_ranges) {
  if (IsValidUtf8(text)) return Encoding(parts, text, plain, with_ranges).Run();
  const std::string repaired = ReplaceInvalidUtf8(text);
  return Encoding(parts, repaired, plain, with_ranges).Run();
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const TokenizerParts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

std::vector<TokenId> Tokenizer::Encode(std::string_view text, SpecialTokens mode) const {
  // Replacement can make a text three times as long; the range only has to cover it.
  const TextRange everything{0, 3 * text.size()};
  const absl::Span<const TextRange> all(&everything, 1);
  return Run(*parts_, text, mode == SpecialTokens::kPlain ? all : absl::Span<const TextRange>(), false).ids;
}

TokenizedText Tokenizer::EncodeWithRanges(std::string_view text, absl::Span<const TextRange> plain) const {
  return Run(*parts_, text, plain, true);
}

std::string Tokenizer::Decode(absl::Span<const TokenId> ids, bool skip_special) const {
  std::string bytes;
  DecodePosition position;
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocab_size() || parts_->texts[id].empty()) continue;
    if (!skip_special || !parts_->special[id]) parts_->decoder.Append(parts_->texts[id], position, bytes);
  }
  return ReplaceInvalidUtf8(bytes, broken_utf8());
}

std::string Tokenizer::TokenBytes(TokenId id) const {
  std::string bytes;
  DecodePosition inside = DecodePosition::Inside();
  if (id >= 0 && id < vocab_size()) parts_->decoder.Append(parts_->texts[id], inside, bytes);
  return bytes;
}

BrokenUtf8 Tokenizer::broken_utf8() const {
  return parts_->decoder.byte_fallback() ? BrokenUtf8::kPerByte : BrokenUtf8::kPerPart;
}

bool Tokenizer::IsSpecial(TokenId id) const { return id >= 0 && id < vocab_size() && parts_->special[id]; }

std::optional<TokenId> Tokenizer::Find(std::string_view token) const {
  const auto added = parts_->added_ids.find(ToAbsl(token));
  if (added != parts_->added_ids.end()) return added->second;
  if (const auto id = std::visit([&](const auto& model) { return model.Find(token); }, parts_->model)) return id;
  // Vocabularies that write a space as "\u2581".
  for (TokenId id = 0; id < vocab_size(); ++id) {
    if (!IsSpecial(id) && TokenBytes(id) == token) return id;
  }
  return std::nullopt;
}

std::vector<TextRange> Tokenizer::FindSpecialTexts(std::string_view text) const {
  const auto anywhere = [](TextRange) { return false; };
  std::vector<TextRange> found;
  for (const AddedTokenSection& section : parts_->special_texts.Split(text, anywhere)) {
    if (section.id) found.push_back(section.range);
  }
  if (parts_->normalized_special_texts.empty()) return found;
  const NormalizedText normalized(text, parts_->normalizer);
  for (const AddedTokenSection& section : parts_->normalized_special_texts.Split(normalized.text(), anywhere)) {
    if (section.id) found.push_back(normalized.ToOriginal(section.range));
  }
  std::sort(found.begin(), found.end(), [](const TextRange& a, const TextRange& b) { return a.begin < b.begin; });
  std::vector<TextRange> disjoint;
  for (const TextRange& range : found) {
    if (!disjoint.empty() && range.begin < disjoint.back().end) {
      disjoint.back().end = std::max(disjoint.back().end, range.end);
    } else if (range.begin < range.end) {
      disjoint.push_back(range);
    }
  }
  return disjoint;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(parts_->texts.size()); }
std::optional<TokenId> Tokenizer::bos() const { return parts_->ids.bos; }
std::optional<TokenId> Tokenizer::eos() const { return parts_->ids.eos; }
std::optional<TokenId> Tokenizer::pad() const { return parts_->ids.pad; }
std::optional<TokenId> Tokenizer::unk() const { return parts_->ids.unk; }
const std::vector<TokenId>& Tokenizer::prompt_prefix() const { return parts_->ids.prompt_prefix; }
const std::vector<TokenId>& Tokenizer::end_of_generation() const { return parts_->ids.end_of_generation; }

}  // namespace trimtab
