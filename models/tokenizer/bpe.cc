#include "models/tokenizer/bpe.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <utility>

#include "models/tokenizer/utf8.h"

namespace trimtab {
namespace {

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// A possible merge. The queue gives the lowest rank first, then the leftmost place.
struct Candidate {
  uint64_t rank_and_place;
  TokenId merged;

  bool operator>(const Candidate& other) const { return rank_and_place > other.rank_and_place; }
};

absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

// A token of the piece under work, in a list that shrinks as neighbours merge.
struct Bpe::Symbol {
  TokenId id;        // -1: merged into its left neighbour
  int32_t previous;  // -1: none
  int32_t next;      // -1: none
  TextRange range;
};

Bpe::Bpe(TokensByText tokens, const std::vector<BpeMerge>& merges, BpeOptions options)
    : tokens_(std::move(tokens)), options_(options) {
  merges_.reserve(merges.size());
  int32_t rank = 0;
  for (const BpeMerge& merge : merges) merges_[PairKey(merge.left, merge.right)] = {rank++, merge.merged};
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    single_byte_[byte] = Find(std::string_view(&text, 1)).value_or(-1);
  }
}

std::optional<TokenId> Bpe::Find(std::string_view bytes) const {
  const auto found = tokens_.find(ToAbsl(bytes));
  if (found == tokens_.end()) return std::nullopt;
  return found->second;
}

const Bpe::Merged* Bpe::FindMerge(TokenId left, TokenId right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<Bpe::Symbol> Bpe::Symbols(std::string_view piece) const {
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  bool after_unknown = false;
  const auto add = [&](TokenId id, size_t begin, size_t end) {
    const auto place = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, place - 1, place + 1, {begin, end}});
    after_unknown = false;
  };
  for (size_t i = 0, end; i < piece.size(); i = end) {
    const auto byte = static_cast<unsigned char>(piece[i]);
    end = i + (options_.byte_level || byte < 0x80 ? 1 : ReadUtf8(piece, i).length);
    if (end == i + 1 && single_byte_[byte] >= 0) {
      add(single_byte_[byte], i, end);
      continue;
    }
    const std::string_view character = piece.substr(i, end - i);
    if (end > i + 1) {
      if (const auto id = Find(character)) {
        add(*id, i, end);
        continue;
      }
    }
    const auto& fallback = options_.byte_fallback;
    if (std::all_of(character.begin(), character.end(),
                    [&](char c) { return fallback[static_cast<unsigned char>(c)] >= 0; })) {
      for (size_t k = i; k < end; ++k) add(fallback[static_cast<unsigned char>(piece[k])], k, k + 1);
    } else if (options_.unknown && after_unknown && options_.fuse_unknown) {
      symbols.back().range.end = end;
    } else if (options_.unknown) {
      add(*options_.unknown, i, end);
      after_unknown = true;
    }
  }
  if (!symbols.empty()) symbols.back().next = -1;
  return symbols;
}

void Bpe::Encode(std::string_view piece, std::vector<PieceToken>& out) const {
  if (piece.empty()) return;
  if (options_.ignore_merges) {
    if (const auto whole = Find(piece)) {
      out.push_back({*whole, {0, piece.size()}});
      return;
    }
  }
  if (piece.size() == 1 && single_byte_[static_cast<unsigned char>(piece[0])] >= 0) {
    out.push_back({single_byte_[static_cast<unsigned char>(piece[0])], {0, 1}});
    return;
  }

  std::vector<Symbol> symbols = Symbols(piece);
  if (symbols.empty()) return;
  std::vector<Candidate> candidates;
  candidates.reserve(symbols.size());
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<Candidate>> queue(std::greater<Candidate>(),
                                                                                        std::move(candidates));
  const auto consider = [&](int32_t place) {
    const int32_t next = symbols[place].next;
    if (next < 0) return;
    if (const Merged* merge = FindMerge(symbols[place].id, symbols[next].id)) {
      queue.push({PairKey(merge->rank, place), merge->id});
    }
  };
  for (int32_t place = 0; place < static_cast<int32_t>(symbols.size()); ++place) consider(place);
  while (!queue.empty()) {
    const auto place = static_cast<int32_t>(queue.top().rank_and_place);  // the low half
    const TokenId merged = queue.top().merged;
    queue.pop();
    Symbol& left = symbols[place];
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    // The neighbours may have changed since this candidate was noted.
    const Merged* merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->id != merged) continue;
    left.id = merged;
    left.range.end = right.range.end;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[left.next].previous = place;
    if (left.previous >= 0) consider(left.previous);
    consider(place);
  }
  for (int32_t place = 0; place >= 0; place = symbols[place].next) {
    out.push_back({symbols[place].id, symbols[place].range});
  }
}

}  // namespace trimtab
