#include "tools/trimctl/audit_page.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/base/hash.h"
#include "tools/trimctl/text.h"

namespace trimtab {
namespace {

using Side = v1::TokenAttribution;

constexpr size_t kTopTokens = 12;

constexpr char kStyle[] = R"css(
:root { color-scheme: light dark; --page: #fff; --ink: #1b1b1b; --faint: #5c5c5c; --line: #d5d5d5; --card: #f7f7f7;
  --for: 20 100 200; --against: 205 95 0; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) {
  :root { --page: #141414; --ink: #ececec; --faint: #a5a5a5; --line: #3a3a3a; --card: #1e1e1e;
    --for: 70 145 255; --against: 240 130 30; --warn: #f0b84a; }
}
* { box-sizing: border-box; }
body { font: 16px/1.6 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 60rem;
  margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0; }
h3 { font-size: .95rem; margin: 1rem 0 .2rem; }
.faint { color: var(--faint); font-size: .875rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .45rem .7rem; }
.facts .wide { grid-column: 1 / -1; }
.facts dt { color: var(--faint); font-size: .8rem; }
.facts dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.warning { border-left: 4px solid var(--warn); padding: .1rem .7rem; margin: .4rem 0; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; align-items: baseline; margin: .8rem 0; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; position: sticky; top: 0;
  background: var(--page); border-bottom: 1px solid var(--line); padding: .6rem 0; margin-top: 1.2rem; z-index: 1; }
.controls[hidden] { display: none; }
.controls input, .controls select { font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: .3rem; padding: .15rem .4rem; }
section { border-bottom: 1px solid var(--line); padding: .9rem 0; }
section[hidden] { display: none; }
.head { display: flex; flex-wrap: wrap; gap: .2rem .7rem; align-items: baseline; }
.badge { font-size: .78rem; border: 1px solid var(--warn); color: var(--warn); border-radius: 1rem; padding: 0 .55rem; }
.badge.plain { border-color: var(--line); color: var(--faint); }
.numbers { margin: .15rem 0; font-size: .875rem; color: var(--faint); font-variant-numeric: tabular-nums; }
.numbers b { color: var(--ink); font-weight: 600; }
.prompt { white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0; line-height: 2; }
.t { border-radius: .2rem; padding: .1em 0; }
.f { background: rgb(var(--for) / var(--a)); }
.g { background: rgb(var(--against) / var(--a)); }
.mf { border: 2px solid rgb(var(--for)); }
.mg { border: 2px dashed rgb(var(--against)); }
.words { margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .25rem .6rem; }
details { font-size: .875rem; }
summary { cursor: pointer; color: var(--faint); }
table { border-collapse: collapse; margin: .4rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .1rem .9rem .1rem 0; border-bottom: 1px solid var(--line); white-space: pre; }
td.n, th.n { text-align: right; }
)css";

// Shows the controls and does what they say. All it reads are data attributes and the page's own text.
constexpr char kScript[] = R"js(
'use strict';
const list = document.getElementById('pairs');
const pairs = Array.from(list.children);
const get = id => document.getElementById(id);
const keys = {
  pair: p => +p.dataset.pair,
  plus: p => -Math.abs(+p.dataset.plus),
  minus: p => -Math.abs(+p.dataset.minus),
  value: p => +p.dataset.value,
  error: p => -p.dataset.error,
};
const texts = new Map(pairs.map(p => [p, p.querySelector('.prompt').textContent.toLowerCase()]));
function update() {
  const key = keys[get('sort').value], text = get('find').value.toLowerCase();
  const low = get('low').checked, used = get('used').checked;
  let shown = 0;
  for (const p of pairs) {
    p.hidden = (low && p.dataset.low !== '1') || (used && p.dataset.used !== '1') || !texts.get(p).includes(text);
    shown += !p.hidden;
  }
  list.append(...pairs.slice().sort((a, b) => key(a) - key(b) || a.dataset.pair - b.dataset.pair));
  get('count').textContent = shown + ' of ' + pairs.length + ' pairs';
}
get('controls').hidden = false;
for (const id of ['sort', 'find', 'low', 'used']) get(id).addEventListener('input', update);
update();
)js";

double Finite(double value) { return std::isfinite(value) ? value : 0; }

std::string Signed3(double value) { return absl::StrFormat("%+.3f", Finite(value)); }

bool IsFor(const v1::TokenAttribution& token) { return token.side() == Side::SIDE_MASKED_POSITIVE; }
bool IsAgainst(const v1::TokenAttribution& token) { return token.side() == Side::SIDE_MASKED_NEGATIVE; }

std::string SideText(const v1::TokenAttribution& token) {
  if (IsFor(token)) return "masked, for";
  return IsAgainst(token) ? "masked, against" : "";
}

// A token on the colour of its sign, `share` of the full strength.
std::string TokenSpan(std::string_view text, double share, std::string_view mask_class, std::string_view title) {
  std::string span = "<span class=\"t";
  if (share != 0) absl::StrAppend(&span, share > 0 ? " f" : " g");
  if (!mask_class.empty()) absl::StrAppend(&span, " ", std::string(mask_class));
  absl::StrAppend(&span, "\"");
  if (share != 0) absl::StrAppend(&span, " style=\"--a:", absl::StrFormat("%.2f", 0.6 * std::abs(share)), "\"");
  if (!title.empty()) absl::StrAppend(&span, " title=\"", EscapeHtml(title), "\"");
  return absl::StrCat(span, ">", EscapeHtml(text), "</span>");
}

std::string Fact(std::string_view name, const std::string& value, bool wide = false) {
  if (value.empty()) return "";
  return absl::StrCat(wide ? "<div class=\"wide\"><dt>" : "<div><dt>", EscapeHtml(name), "</dt><dd>", EscapeHtml(value),
                      "</dd></div>\n");
}

std::string EffectText(const v1::EffectSummary& effect) {
  return absl::StrFormat("%+.3f nats per token [%+.3f, %+.3f], %d pairs", effect.margin_gain(), effect.ci95_low(),
                         effect.ci95_high(), effect.pair_count());
}

std::string LayersText(const v1::RevisionSummary& revision) {
  std::vector<std::string> layers;
  for (const v1::LayerSummary& layer : revision.layers()) layers.push_back(absl::StrCat(layer.layer()));
  return absl::StrJoin(layers, ", ");
}

// What the pairs say together.
struct Totals {
  int used = 0, low = 0, lowered = 0, raised = 0;
  double plus = 0, minus = 0;                        // sums of the changes
  std::map<std::string, double, std::less<>> words;  // text without spaces around it -> sum of scores
};

Totals Add(const std::vector<v1::Attribution>& attributions) {
  Totals totals;
  for (const v1::Attribution& attribution : attributions) {
    totals.used += attribution.used() ? 1 : 0;
    totals.low += attribution.low_confidence() ? 1 : 0;
    totals.lowered += attribution.positive_masked_change() < 0 ? 1 : 0;
    totals.raised += attribution.negative_masked_change() > 0 ? 1 : 0;
    totals.plus += Finite(attribution.positive_masked_change());
    totals.minus += Finite(attribution.negative_masked_change());
    for (const v1::TokenAttribution& token : attribution.tokens()) {
      std::string_view word = token.text();
      while (!word.empty() && (word.front() == ' ' || word.front() == '\n')) word.remove_prefix(1);
      if (token.candidate() && !word.empty()) totals.words[std::string(word)] += Finite(token.score());
    }
  }
  return totals;
}

std::string WordList(const Totals& totals, bool positive) {
  std::vector<std::pair<double, std::string>> words;
  for (const auto& [word, sum] : totals.words) {
    if (positive ? sum > 0 : sum < 0) words.emplace_back(std::abs(sum), word);
  }
  std::stable_sort(words.begin(), words.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  if (words.size() > kTopTokens) words.resize(kTopTokens);
  std::string list = absl::StrCat("<h3>", positive ? "For the preferred answers" : "For the dispreferred answers",
                                  ", all prompts together</h3>\n<ul class=\"words\">\n");
  for (const auto& [sum, word] : words) {
    const double signed_sum = positive ? sum : -sum;
    absl::StrAppend(&list, "<li>", TokenSpan(word, signed_sum / words.front().first, "", ""), " <span class=\"faint\">",
                    absl::StrFormat("%+.2f", signed_sum), "</span></li>\n");
  }
  if (words.empty()) absl::StrAppend(&list, "<li class=\"faint\">none</li>\n");
  return absl::StrCat(list, "</ul>\n");
}

std::string Summary(const v1::RevisionSummary& revision, const std::vector<v1::Attribution>& attributions,
                    const Totals& totals) {
  const auto count = static_cast<int>(attributions.size());
  std::string html = absl::StrCat("<h1>Audit of ", EscapeHtml(revision.name()), "</h1>\n<dl class=\"facts\">\n",
                                  Fact("Method", revision.method()), Fact("Attributed", revision.objective_kind()),
                                  Fact("Steered blocks", LayersText(revision)));
  if (count > 0) {
    absl::StrAppend(
        &html, Fact("Pairs", absl::StrFormat("%d, %d used, %d of low confidence", count, totals.used, totals.low)),
        Fact("Without the tokens for it", absl::StrFormat("%+.3f nats on average; lower in %d of %d pairs",
                                                          totals.plus / count, totals.lowered, count)),
        Fact("Without the tokens against it", absl::StrFormat("%+.3f nats on average; higher in %d of %d pairs",
                                                              totals.minus / count, totals.raised, count)));
  }
  if (revision.median_completeness_error() > 0) {
    absl::StrAppend(&html,
                    Fact("Completeness error", absl::StrFormat("median %.3f", revision.median_completeness_error())));
  }
  if (revision.has_held_out()) absl::StrAppend(&html, Fact("Held-out gain", EffectText(revision.held_out())));
  if (revision.has_validation()) absl::StrAppend(&html, Fact("Validation gain", EffectText(revision.validation())));
  absl::StrAppend(&html, Fact("Recommended strength", absl::StrFormat("%.3g", revision.recommended_strength())),
                  Fact("Fitted", FormatTime(revision.create_time())), Fact("Digest", revision.digest(), true),
                  Fact("Imported from", revision.imported_from(), true), "</dl>\n");
  for (const std::string& warning : revision.warnings()) {
    absl::StrAppend(&html, "<p class=\"warning\">", EscapeHtml(warning), "</p>\n");
  }
  return html;
}

constexpr char kLegend[] = R"html(<div class="legend">
<span><span class="t f" style="--a:.6"> strong </span><span class="t f" style="--a:.2"> weak </span> for the preferred
answer (score above 0)</span>
<span><span class="t g" style="--a:.6"> strong </span><span class="t g" style="--a:.2"> weak </span> for the dispreferred
answer (below 0)</span>
<span><span class="t mf">solid frame</span> masked as for it</span>
<span><span class="t mg">dashed frame</span> masked as against it</span>
</div>
<p class="faint">A colour's strength is the token's share of its prompt's largest score. Point at a token to read its score,
or open a pair's table. Template tokens are left out.</p>
)html";

constexpr char kControls[] = R"html(<div class="controls" id="controls" hidden>
<label>Order <select id="sort">
<option value="pair">as registered</option>
<option value="plus">largest change without the tokens for it</option>
<option value="minus">largest change without the tokens against it</option>
<option value="value">smallest objective</option>
<option value="error">largest completeness error</option>
</select></label>
<label>Find <input id="find" type="search" placeholder="in prompts"></label>
<label><input id="low" type="checkbox"> low confidence only</label>
<label><input id="used" type="checkbox"> used only</label>
<span class="faint" id="count" aria-live="polite"></span>
</div>
)html";

double LargestScore(const v1::Attribution& attribution) {
  double largest = 0;
  for (const v1::TokenAttribution& token : attribution.tokens()) {
    if (token.candidate()) largest = std::max(largest, std::abs(Finite(token.score())));
  }
  return largest;
}

std::string Table(const v1::Attribution& attribution) {
  std::string table =
      "<details><summary>Scores as a table</summary>\n<table><tr><th class=\"n\">Position</th><th>Token</th>"
      "<th class=\"n\">Score, nats</th><th>Use</th></tr>\n";
  for (const v1::TokenAttribution& token : attribution.tokens()) {
    if (!token.candidate()) continue;
    absl::StrAppend(&table, "<tr><td class=\"n\">", token.position(), "</td><td>", EscapeHtml(token.text()),
                    "</td><td class=\"n\">", absl::StrFormat("%+.4f", Finite(token.score())), "</td><td>",
                    SideText(token), "</td></tr>\n");
  }
  return absl::StrCat(table, "</table></details>\n");
}

std::string Pair(const v1::Attribution& attribution) {
  const double plus = Finite(attribution.positive_masked_change()),
               minus = Finite(attribution.negative_masked_change());
  const double error = Finite(attribution.completeness_error());
  std::string html = absl::StrFormat(
      "<section data-pair=\"%d\" data-plus=\"%.6g\" data-minus=\"%.6g\" data-value=\"%.6g\" data-error=\"%.6g\" "
      "data-low=\"%d\" data-used=\"%d\">\n<div class=\"head\"><h2>Pair %d</h2>",
      attribution.pair_index(), plus, minus, Finite(attribution.objective_value()), error, attribution.low_confidence(),
      attribution.used(), attribution.pair_index());
  if (attribution.low_confidence()) absl::StrAppend(&html, "<span class=\"badge\">low confidence</span>");
  if (!attribution.used()) absl::StrAppend(&html, "<span class=\"badge\">not used</span>");
  if (!attribution.method().empty()) {
    absl::StrAppend(&html, "<span class=\"badge plain\">", EscapeHtml(attribution.method()), "</span>");
  }
  absl::StrAppend(&html, "</div>\n<p class=\"numbers\">objective <b>", Signed3(attribution.objective_value()),
                  "</b> nats · without the tokens for it <b>", Signed3(plus),
                  "</b> · without the tokens against it <b>", Signed3(minus), "</b>");
  if (error > 0) absl::StrAppend(&html, " · completeness error <b>", absl::StrFormat("%.3f", error), "</b>");
  absl::StrAppend(&html, "</p>\n<p class=\"prompt\">");
  const double largest = LargestScore(attribution);
  for (const v1::TokenAttribution& token : attribution.tokens()) {
    if (!token.candidate()) continue;
    const double score = Finite(token.score());
    const std::string side = SideText(token);
    absl::StrAppend(&html, TokenSpan(token.text(), largest > 0 ? score / largest : 0,
                                     IsFor(token)       ? "mf"
                                     : IsAgainst(token) ? "mg"
                                                        : "",
                                     absl::StrFormat("%+.4f nats, position %d%s%s", score, token.position(),
                                                     side.empty() ? "" : ", ", side)));
  }
  return absl::StrCat(html, "</p>\n", Table(attribution), "</section>\n");
}

}  // namespace

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

std::string AuditPage(const v1::RevisionSummary& revision, const std::vector<v1::Attribution>& attributions) {
  const auto script_hash = Sha256().Update(kScript, sizeof(kScript) - 1).Finish();
  const std::string hash =
      absl::Base64Escape(absl::string_view(reinterpret_cast<const char*>(script_hash.data()), script_hash.size()));
  std::string html = absl::StrCat(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; base-uri 'none'; form-action 'none'; "
      "style-src 'unsafe-inline'; script-src 'sha256-",
      hash, "'\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Audit of ",
      EscapeHtml(revision.name()), "</title>\n<style>", kStyle, "</style>\n</head>\n<body>\n");
  const Totals totals = Add(attributions);
  absl::StrAppend(&html, Summary(revision, attributions, totals));
  if (attributions.empty()) {
    return absl::StrCat(html, "<p>This revision has no audit: its method looks at no tokens, or it was imported.</p>\n",
                        "</body>\n</html>\n");
  }
  absl::StrAppend(&html, WordList(totals, true), WordList(totals, false), kLegend, kControls, "<div id=\"pairs\">\n");
  for (const v1::Attribution& attribution : attributions) absl::StrAppend(&html, Pair(attribution));
  return absl::StrCat(html, "</div>\n<script>", kScript, "</script>\n</body>\n</html>\n");
}

}  // namespace trimtab
