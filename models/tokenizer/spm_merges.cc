#include "models/tokenizer/spm_merges.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace trimtab {
namespace {

struct Candidate {
  BpeMerge merge;
  double score;
  uint32_t left_length, right_length;  // in characters
};

bool BeginsCharacter(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

}  // namespace

std::vector<BpeMerge> DeriveMerges(const TokensByText& tokens, const std::vector<double>& scores) {
  std::vector<std::pair<TokenId, absl::string_view>> by_id;
  by_id.reserve(tokens.size());
  for (const auto& [text, id] : tokens) by_id.emplace_back(id, text);
  std::sort(by_id.begin(), by_id.end());

  std::vector<Candidate> candidates;
  candidates.reserve(2 * tokens.size());
  for (const auto& [id, text] : by_id) {
    const size_t first = candidates.size();
    const auto length =
        static_cast<uint32_t>(std::count_if(text.begin(), text.end(), [](char c) { return BeginsCharacter(c); }));
    uint32_t left_length = 1;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      if (!BeginsCharacter(text[cut])) continue;
      const uint32_t left_characters = left_length++;
      const auto left = tokens.find(text.substr(0, cut));
      if (left == tokens.end()) continue;
      const auto right = tokens.find(text.substr(cut));
      if (right == tokens.end()) continue;
      candidates.push_back({{left->second, right->second, id}, scores[id], left_characters, length - left_characters});
    }
    std::sort(candidates.begin() + static_cast<int64_t>(first), candidates.end(), [](const auto& a, const auto& b) {
      return std::tie(a.merge.left, a.merge.right) < std::tie(b.merge.left, b.merge.right);
    });
  }
  std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(b.score, b.left_length, b.right_length) < std::tie(a.score, a.left_length, a.right_length);
  });
  std::vector<BpeMerge> merges;
  merges.reserve(candidates.size());
  for (const Candidate& candidate : candidates) merges.push_back(candidate.merge);
  return merges;
}

}  // namespace trimtab
