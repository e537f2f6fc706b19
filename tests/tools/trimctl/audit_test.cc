#include "tools/trimctl/audit.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

namespace trimtab {
namespace {

void AddToken(v1::Attribution& attribution, const std::string& text, float score, v1::TokenAttribution::Side side,
              bool candidate = true) {
  v1::TokenAttribution& token = *attribution.add_tokens();
  token.set_text(text);
  token.set_score(score);
  token.set_side(side);
  token.set_candidate(candidate);
  token.set_position(attribution.tokens_size() - 1);
}

v1::Attribution MakeAttribution() {
  v1::Attribution attribution;
  attribution.set_pair_index(3);
  attribution.set_method("occlusion");
  attribution.set_used(true);
  attribution.set_objective_value(1.5);
  attribution.set_positive_masked_change(-2);
  attribution.set_negative_masked_change(1);
  AddToken(attribution, "<|im_start|>", 9, v1::TokenAttribution::SIDE_NONE, false);
  AddToken(attribution, "good", 3, v1::TokenAttribution::SIDE_MASKED_POSITIVE);
  AddToken(attribution, " or", 0.1f, v1::TokenAttribution::SIDE_NONE);
  AddToken(attribution, " bad", -1.8f, v1::TokenAttribution::SIDE_MASKED_NEGATIVE);
  AddToken(attribution, "?", 1, v1::TokenAttribution::SIDE_NONE);
  return attribution;
}

TEST(Audit, MarksTokensWithoutColor) {
  const std::string text = RenderAttribution(MakeAttribution(), false);
  EXPECT_NE(text.find("good[+++*] or bad[--*]?[+]\n"), std::string::npos) << text;
  EXPECT_NE(text.find("pair 3  margin +1.500; without the tokens for it -2.000, without those against it +1.000 nats"),
            std::string::npos)
      << text;
  EXPECT_EQ(text.find("im_start"), std::string::npos) << text;
}

TEST(Audit, ColorsTokensBySignAndUnderlinesMaskedOnes) {
  const std::string text = RenderAttribution(MakeAttribution(), true);
  EXPECT_NE(text.find("\033[4;30;48;5;77mgood\033[0m or\033[4;30;48;5;210m bad\033[0m\033[30;48;5;194m?\033[0m"),
            std::string::npos)
      << text;
}

TEST(Audit, TextOfTokensCannotSteerTheTerminal) {
  v1::Attribution attribution;
  AddToken(attribution, "\033]0;x\a\n", 1, v1::TokenAttribution::SIDE_NONE);
  EXPECT_EQ(RenderAttribution(attribution, false).find('\033'), std::string::npos);
  EXPECT_NE(RenderAttribution(attribution, false).find("\\n[+++]"), std::string::npos);
}

TEST(Audit, OrdersInfluentialTokens) {
  EXPECT_EQ(RenderInfluentialTokens(MakeAttribution(), 2, false),
            "  for the preferred answer:     \"good\" +3.00  \"?\" +1.00\n"
            "  for the dispreferred answer:  \"bad\" -1.80\n");
  v1::Attribution odd;
  AddToken(odd, "x", std::numeric_limits<float>::quiet_NaN(), v1::TokenAttribution::SIDE_NONE);
  EXPECT_EQ(RenderInfluentialTokens(odd, 2, false),
            "  for the preferred answer:     none\n  for the dispreferred answer:  none\n");
}

}  // namespace
}  // namespace trimtab
