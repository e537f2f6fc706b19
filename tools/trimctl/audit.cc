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

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : Printable(text)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string AuditHtml(std::string_view revision, const std::vector<v1::Attribution>& attributions) {
  const std::string title = EscapeHtml(revision);
  std::string html = absl::StrCat(R"(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit of )",
                                  title, R"html(</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; }
section { border-top: 1px solid #8884; padding: .7rem 0; }
h2 { font-size: 1rem; margin: 0; }
.numbers { color: #777; font-size: .85rem; margin: 0; }
.prompt { white-space: pre-wrap; margin: .3rem 0 0; }
.token { border-radius: .2rem; }
.masked { text-decoration: underline; text-decoration-thickness: 2px; }
</style>
</head>
<body>
<h1>Audit of )html",
                                  title, R"html(</h1>
<p><span class="token" style="background:rgba(40,160,70,.5)">Green</span> tokens speak for the preferred answer,
<span class="token" style="background:rgba(210,50,50,.5)">red</span> ones for the dispreferred answer;
<span class="token masked">underlined</span> ones were masked to find the direction. Point at a token to read its score.</p>
)html");
  for (const v1::Attribution& attribution : attributions) {
    const float largest = LargestScore(attribution);
    absl::StrAppend(&html, "<section>\n<h2>Pair ", attribution.pair_index(), "</h2>\n<p class=\"numbers\">",
                    EscapeHtml(Numbers(attribution)), "</p>\n<p class=\"prompt\">");
    for (const v1::TokenAttribution& token : attribution.tokens()) {
      if (!token.candidate()) continue;
      const float share = largest > 0 && std::isfinite(token.score()) ? token.score() / largest : 0;
      absl::StrAppend(&html, "<span class=\"token", IsMasked(token) ? " masked" : "", "\" style=\"background:rgba(",
                      share >= 0 ? "40,160,70" : "210,50,50", ",", absl::StrFormat("%.2f", 0.7 * std::abs(share)),
                      ")\" title=\"", absl::StrFormat("score %+.4f nats, position %d", token.score(), token.position()),
                      "\">", EscapeHtml(token.text()), "</span>");
    }
    absl::StrAppend(&html, "</p>\n</section>\n");
  }
  return absl::StrCat(html, "</body>\n</html>\n");
}

}  // namespace trimtab
