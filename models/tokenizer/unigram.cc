#include "models/tokenizer/unigram.h"

#include <algorithm>
#include <utility>

#include "models/tokenizer/utf8.h"

namespace trimtab {
namespace {

constexpr TokenId kUnknown = -1;
constexpr double kUnknownPenalty = 10.0;

// The best way to write the piece up to one of its bytes.
struct Best {
  double score = 0.0;
  int64_t begin = -1;  // of its last token; -1: there is no way yet
  TokenId id = kUnknown;
};

}  // namespace

Unigram::Unigram(TokensByText tokens, std::vector<double> scores, UnigramOptions options)
    : tokens_(std::move(tokens)), scores_(std::move(scores)), options_(options) {
  for (const auto& [text, id] : tokens_) trie_.Add({text.data(), text.size()}, id);
  unknown_score_ = scores_.empty() ? 0.0 : *std::min_element(scores_.begin(), scores_.end());
  unknown_score_ -= kUnknownPenalty;
}

std::optional<TokenId> Unigram::Find(std::string_view text) const {
  const auto found = tokens_.find({text.data(), text.size()});
  if (found == tokens_.end()) return std::nullopt;
  return found->second;
}

void Unigram::Encode(std::string_view piece, std::vector<PieceToken>& out) const {
  std::vector<Best> best(piece.size() + 1);
  const auto offer = [&](size_t begin, size_t end, double score, TokenId id) {
    if (best[end].begin < 0 || score > best[end].score) best[end] = {score, static_cast<int64_t>(begin), id};
  };
  for (size_t begin = 0, length; begin < piece.size(); begin += length) {
    length = ReadUtf8(piece, begin).length;
    bool has_character = false;
    trie_.ForEachPrefix(piece, begin, [&](size_t end, TokenId id) {
      offer(begin, end, best[begin].score + scores_[id], id);
      has_character |= end == begin + length;
    });
    if (!has_character) offer(begin, begin + length, best[begin].score + unknown_score_, kUnknown);
  }

  std::vector<PieceToken> reversed;
  for (size_t end = piece.size(); end > 0; end = static_cast<size_t>(best[end].begin)) {
    const auto begin = static_cast<size_t>(best[end].begin);
    if (best[end].id == kUnknown && !reversed.empty() && reversed.back().id == kUnknown) {
      reversed.back().range.begin = begin;  // one for a run
    } else {
      reversed.push_back({best[end].id, {begin, end}});
    }
  }
  for (auto token = reversed.rbegin(); token != reversed.rend(); ++token) {
    if (token->id == kUnknown) {
      AppendUnknown(piece, token->range, out);
    } else {
      out.push_back(*token);
    }
  }
}

void Unigram::AppendUnknown(std::string_view piece, TextRange range, std::vector<PieceToken>& out) const {
  const std::string_view run = piece.substr(range.begin, range.end - range.begin);
  const auto& fallback = options_.byte_fallback;
  if (std::all_of(run.begin(), run.end(), [&](char c) { return fallback[static_cast<unsigned char>(c)] >= 0; })) {
    for (size_t i = 0; i < run.size(); ++i) {
      out.push_back({fallback[static_cast<unsigned char>(run[i])], {range.begin + i, range.begin + i + 1}});
    }
  } else if (options_.unknown) {
    out.push_back({*options_.unknown, range});
  }
}

}  // namespace trimtab
