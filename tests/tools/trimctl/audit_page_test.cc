// The page: what it shows, that it needs nothing else, that nothing from the server gets out of its place.
#include "tools/trimctl/audit_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <regex>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "server/base/hash.h"

namespace trimtab {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

void AddToken(v1::Attribution& attribution, const std::string& text, float score, v1::TokenAttribution::Side side,
              bool candidate = true) {
  v1::TokenAttribution& token = *attribution.add_tokens();
  token.set_text(text);
  token.set_score(score);
  token.set_side(side);
  token.set_candidate(candidate);
  token.set_position(attribution.tokens_size() - 1);
}

v1::Attribution MakeAttribution(int pair) {
  v1::Attribution attribution;
  attribution.set_pair_index(pair);
  attribution.set_method("integrated_gradients");
  attribution.set_used(true);
  attribution.set_objective_value(1.5);
  attribution.set_positive_masked_change(-2);
  attribution.set_negative_masked_change(1);
  attribution.set_completeness_error(0.04f);
  AddToken(attribution, "<|im_start|>", 9, v1::TokenAttribution::SIDE_NONE, false);
  AddToken(attribution, "good", 3, v1::TokenAttribution::SIDE_MASKED_POSITIVE);
  AddToken(attribution, " or", 0, v1::TokenAttribution::SIDE_NONE);
  AddToken(attribution, " bad", -1.5f, v1::TokenAttribution::SIDE_MASKED_NEGATIVE);
  return attribution;
}

v1::RevisionSummary MakeRevision() {
  v1::RevisionSummary revision;
  revision.set_name("models/m/objectives/calm/revisions/2");
  revision.set_method("grains");
  revision.set_objective_kind("pref_mean");
  revision.set_recommended_strength(0.05f);
  revision.set_median_completeness_error(0.04f);
  revision.add_layers()->set_layer(15);
  revision.mutable_held_out()->set_margin_gain(0.117);
  revision.mutable_held_out()->set_ci95_low(0.056);
  revision.mutable_held_out()->set_ci95_high(0.177);
  revision.mutable_held_out()->set_pair_count(30);
  revision.add_warnings("directions disagree");
  return revision;
}

// The page without its style and script, which hold no text of the server's.
std::string Body(const std::string& page) { return page.substr(page.find("<body>")); }

TEST(AuditPage, SumsUpAtTheTop) {
  v1::Attribution doubtful = MakeAttribution(1);
  doubtful.set_low_confidence(true);
  doubtful.set_used(false);
  doubtful.set_positive_masked_change(1);
  const std::string page = AuditPage(MakeRevision(), {MakeAttribution(0), doubtful});
  for (const char* part :
       {"<h1>Audit of models/m/objectives/calm/revisions/2</h1>", "<dd>grains</dd>", "2, 1 used, 1 of low confidence",
        "-0.500 nats on average; lower in 1 of 2 pairs", "+1.000 nats on average; higher in 2 of 2 pairs",
        "median 0.040", "+0.117 nats per token [+0.056, +0.177], 30 pairs", "directions disagree"}) {
    EXPECT_THAT(page, HasSubstr(part));
  }
  // The words of both prompts together.
  EXPECT_THAT(page, HasSubstr(">good</span> <span class=\"faint\">+6.00</span>"));
  EXPECT_THAT(page, HasSubstr(">bad</span> <span class=\"faint\">-3.00</span>"));
}

TEST(AuditPage, ShowsEachPairsTokensAndNumbers) {
  v1::Attribution doubtful = MakeAttribution(7);
  doubtful.set_low_confidence(true);
  doubtful.set_used(false);
  const std::string page = AuditPage(MakeRevision(), {MakeAttribution(3), doubtful});
  EXPECT_THAT(page, HasSubstr("<section data-pair=\"3\" data-plus=\"-2\" data-minus=\"1\" data-value=\"1.5\" "
                              "data-error=\"0.04\" data-low=\"0\" data-used=\"1\">"));
  EXPECT_THAT(page, HasSubstr("objective <b>+1.500</b> nats"));
  EXPECT_THAT(page, HasSubstr("without the tokens for it <b>-2.000</b>"));
  EXPECT_THAT(page, HasSubstr("without the tokens against it <b>+1.000</b>"));
  EXPECT_THAT(page, HasSubstr("completeness error <b>0.040</b>"));
  // Sign by colour, share by its strength, masked sets by their frames, values on pointing.
  EXPECT_THAT(page, HasSubstr("<span class=\"t f mf\" style=\"--a:0.60\" title=\"+3.0000 nats, position 1, masked, "
                              "for\">good</span>"));
  EXPECT_THAT(page, HasSubstr("<span class=\"t\" title=\"+0.0000 nats, position 2\"> or</span>"));
  EXPECT_THAT(page, HasSubstr("<span class=\"t g mg\" style=\"--a:0.30\" title=\"-1.5000 nats, position 3, masked, "
                              "against\"> bad</span>"));
  EXPECT_THAT(page, Not(HasSubstr("im_start")));
  EXPECT_THAT(page, HasSubstr("data-pair=\"7\""));
  EXPECT_THAT(page, HasSubstr("<span class=\"badge\">low confidence</span><span class=\"badge\">not used</span>"));
  // The same numbers for those who cannot point.
  EXPECT_THAT(page, HasSubstr("<tr><td class=\"n\">1</td><td>good</td><td class=\"n\">+3.0000</td><td>masked, for"));
}

TEST(AuditPage, LoadsNothingAndRunsItsOwnScriptOnly) {
  const std::string page = AuditPage(MakeRevision(), {MakeAttribution(0)});
  EXPECT_TRUE(page.starts_with("<!doctype html>"));
  EXPECT_TRUE(page.ends_with("</html>\n"));
  for (const char* part : {"http:", "https:", "src=", "href=", "@import", "url("}) {
    EXPECT_THAT(page, Not(HasSubstr(part)));
  }
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  const size_t begin = page.find("<script>") + 8, end = page.find("</script>");
  ASSERT_LT(begin, end);
  EXPECT_EQ(page.find("<script", begin), std::string::npos);
  const auto hash = Sha256().Update(page.substr(begin, end - begin)).Finish();
  const std::string encoded =
      absl::Base64Escape(absl::string_view(reinterpret_cast<const char*>(hash.data()), hash.size()));
  EXPECT_THAT(page, HasSubstr("script-src 'sha256-" + encoded + "'"));
  EXPECT_THAT(page, HasSubstr("prefers-color-scheme: dark"));
}

TEST(AuditPage, EverythingFromTheServerIsEscaped) {
  const std::string evil = "\"'><script>alert(1)</script>&<img src=x onerror=y>";
  v1::Attribution attribution = MakeAttribution(0);
  attribution.set_method(evil);
  AddToken(attribution, evil, -3, v1::TokenAttribution::SIDE_NONE);
  v1::RevisionSummary revision = MakeRevision();
  revision.set_name(evil);
  revision.set_method(evil);
  revision.set_objective_kind(evil);
  revision.set_digest(evil);
  revision.set_imported_from(evil);
  revision.add_warnings(evil);
  const std::string page = AuditPage(revision, {attribution});
  // One script, at the end, the page's own.
  EXPECT_EQ(page.find("<script"), page.rfind("<script"));
  EXPECT_THAT(page, Not(HasSubstr("<img")));
  EXPECT_THAT(page, Not(HasSubstr("alert(1)</script>")));
  EXPECT_THAT(page, HasSubstr("&quot;&#39;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&lt;img src=x onerror=y&gt;"));
  EXPECT_EQ(EscapeHtml("<a href=\"x\">&'\x01\n"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;\uFFFD\\n");
}

TEST(AuditPage, EveryElementIsClosed) {
  std::string body = Body(AuditPage(MakeRevision(), {MakeAttribution(0), MakeAttribution(1)}));
  body = body.substr(0, body.find("<script>"));
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-z0-9]+)[^>]*>");
  for (auto it = std::sregex_iterator(body.begin(), body.end(), tag); it != std::sregex_iterator(); ++it) {
    const std::string name = (*it)[2];
    if (name == "input") continue;
    if ((*it)[1].length() == 0) {
      open.push_back(name);
    } else {
      ASSERT_FALSE(open.empty()) << name;
      EXPECT_EQ(open.back(), name);
      open.pop_back();
    }
  }
  EXPECT_THAT(open, testing::ElementsAre("body"));
}

TEST(AuditPage, OddNumbersAndNoPairsAtAll) {
  v1::Attribution odd;
  AddToken(odd, "x", std::numeric_limits<float>::quiet_NaN(), v1::TokenAttribution::SIDE_NONE);
  odd.set_completeness_error(std::numeric_limits<float>::infinity());
  odd.set_objective_value(std::numeric_limits<double>::quiet_NaN());
  const std::string page = AuditPage(MakeRevision(), {odd});
  EXPECT_THAT(Body(page), Not(HasSubstr("nan")));
  EXPECT_THAT(Body(page), Not(HasSubstr("inf")));
  EXPECT_THAT(AuditPage(MakeRevision(), {}), HasSubstr("has no audit"));
}

}  // namespace
}  // namespace trimtab
