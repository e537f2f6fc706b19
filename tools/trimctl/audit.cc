#include "tools/trimctl/audit.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "tools/trimctl/text.h"

namespace trimtab {
namespace {

using Side = v1::TokenAttribution;

float LargestScore(const v1::Attribution& attribution) {
  float largest = 0;
  for (const v1::TokenAttribution& token : attribution.tokens()) {
    if (token.candidate() && std::isfinite(token.score())) largest = std::max(largest, std::abs(token.score()));
  }
  return largest;
}

// How much of the largest score, -3 to 3.
int Level(float score, float largest) {
  if (largest <= 0 || !std::isfinite(score)) return 0;
  return static_cast<int>(std::lround(3 * score / largest));
}

bool IsMasked(const v1::TokenAttribution& token) {
  return token.side() == Side::SIDE_MASKED_POSITIVE || token.side() == Side::SIDE_MASKED_NEGATIVE;
}

// Background from the 256-colour cube, black on it.
std::string_view Style(int level, bool masked) {
  static constexpr std::string_view kPlain[] = {"30;48;5;203", "30;48;5;210", "30;48;5;224", "",
                                                "30;48;5;194", "30;48;5;157", "30;48;5;77"};
  static constexpr std::string_view kMasked[] = {"4;30;48;5;203", "4;30;48;5;210", "4;30;48;5;224", "4",
                                                 "4;30;48;5;194", "4;30;48;5;157", "4;30;48;5;77"};
  return (masked ? kMasked : kPlain)[level + 3];
}

std::string Token(const v1::TokenAttribution& token, float largest, bool color) {
  const int level = Level(token.score(), largest);
  const std::string text = Printable(token.text());
  if (color) return Styled(text, Style(level, IsMasked(token)), true);
  if (level == 0 && !IsMasked(token)) return text;
  return absl::StrCat(text, "[", std::string(static_cast<size_t>(std::abs(level)), level > 0 ? '+' : '-'),
                      IsMasked(token) ? "*" : "", "]");
}

std::string Numbers(const v1::Attribution& attribution) {
  std::string text = absl::StrFormat(
      "margin %+.3f; without the tokens for it %+.3f, without those against it %+.3f nats",
      attribution.objective_value(), attribution.positive_masked_change(), attribution.negative_masked_change());
  if (attribution.completeness_error() > 0) {
    absl::StrAppend(&text, absl::StrFormat("; completeness error %.3f", attribution.completeness_error()));
  }
  if (attribution.low_confidence()) absl::StrAppend(&text, "; low confidence");
  if (!attribution.used()) absl::StrAppend(&text, "; not used");
  return absl::StrCat(text, " (", attribution.method(), ")");
}

}  // namespace

std::string RenderAttribution(const v1::Attribution& attribution, bool color) {
  const float largest = LargestScore(attribution);
  std::string text = absl::StrCat(Styled(absl::StrCat("pair ", attribution.pair_index()), "1", color), "  ",
                                  Printable(Numbers(attribution)), "\n  ");
  for (const v1::TokenAttribution& token : attribution.tokens()) {
    if (token.candidate()) absl::StrAppend(&text, Token(token, largest, color));
  }
  return absl::StrCat(text, "\n");
}

std::string RenderInfluentialTokens(const v1::Attribution& attribution, int count, bool color) {
  std::vector<const v1::TokenAttribution*> tokens;
  for (const v1::TokenAttribution& token : attribution.tokens()) {
    if (token.candidate() && std::isfinite(token.score())) tokens.push_back(&token);
  }
  std::stable_sort(tokens.begin(), tokens.end(), [](const auto* a, const auto* b) { return a->score() > b->score(); });
  const auto side = [&](bool positive) {
    std::vector<std::string> parts;
    for (size_t i = 0; i < tokens.size() && static_cast<int>(parts.size()) < count; ++i) {
      const v1::TokenAttribution& token = positive ? *tokens[i] : *tokens[tokens.size() - 1 - i];
      if (positive ? token.score() <= 0 : token.score() >= 0) break;
      std::string word = Printable(token.text());
      word.erase(0, word.find_first_not_of(' ') == std::string::npos ? 0 : word.find_first_not_of(' '));
      parts.push_back(absl::StrCat(Styled(absl::StrCat("\"", word, "\""), positive ? "32" : "31", color), " ",
                                   Signed(token.score(), 2)));
    }
    return parts.empty() ? std::string("none") : absl::StrJoin(parts, "  ");
  };
  return absl::StrCat("  for the preferred answer:     ", side(true), "\n  for the dispreferred answer:  ", side(false),
                      "\n");
}

}  // namespace trimtab
