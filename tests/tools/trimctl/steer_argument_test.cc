#include "tools/trimctl/steer_argument.h"

#include <gtest/gtest.h>

#include <string>

namespace trimtab {
namespace {

TEST(SteerArgument, ReadsNamesRevisionsAndStrengths) {
  const auto plain = ParseSteer("calm");
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->objective(), "calm");
  EXPECT_FALSE(plain->has_strength());
  const auto strong = ParseSteer("calm@2=-0.25");
  ASSERT_TRUE(strong.ok()) << strong.status();
  EXPECT_EQ(strong->objective(), "calm@2");
  EXPECT_EQ(strong->strength(), -0.25f);
  const auto full = ParseSteer("models/m/objectives/calm=0");
  ASSERT_TRUE(full.ok()) << full.status();
  EXPECT_EQ(full->objective(), "models/m/objectives/calm");
  EXPECT_TRUE(full->has_strength());
  EXPECT_EQ(full->strength(), 0);
}

TEST(SteerArgument, RefusesWhatIsNoSelection) {
  for (const char* text : {"", "=0.3", "calm=", "calm=strong", "calm=nan", "calm=inf", "calm=0.1=2", "ca lm=1"}) {
    EXPECT_EQ(ParseSteer(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(SteerArgument, ReadsLists) {
  const auto none = ParseSteerList("");
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->empty());
  const auto two = ParseSteerList("calm=0.3,formal");
  ASSERT_TRUE(two.ok()) << two.status();
  ASSERT_EQ(two->size(), 2u);
  EXPECT_EQ((*two)[1].objective(), "formal");
  EXPECT_FALSE(ParseSteerList("calm,,formal").ok());
}

TEST(SteerArgument, ReadsPositions) {
  EXPECT_EQ(*ParseApplyTo(""), v1::APPLY_TO_UNSPECIFIED);
  EXPECT_EQ(*ParseApplyTo("all"), v1::APPLY_TO_ALL);
  EXPECT_EQ(*ParseApplyTo("from_last_prompt"), v1::APPLY_TO_FROM_LAST_PROMPT);
  EXPECT_EQ(*ParseApplyTo("response"), v1::APPLY_TO_RESPONSE);
  EXPECT_FALSE(ParseApplyTo("prompt").ok());
}

}  // namespace
}  // namespace trimtab
