#include "models/tokenizer/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trimtab {
namespace {

using testing::ElementsAre;

std::vector<TextRange> FindAll(std::string_view pattern, std::string_view text) {
  const auto regex = Regex::Create(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status();
  std::vector<TextRange> matches;
  EXPECT_TRUE(regex->FindAll(text, matches).ok());
  return matches;
}

TEST(RegexTest, FindsMatchesWithoutOverlap) {
  EXPECT_THAT(FindAll("a+", "aab ba"), ElementsAre(TextRange{0, 2}, TextRange{5, 6}));
  EXPECT_THAT(FindAll("(?i:'s)", "'S's"), ElementsAre(TextRange{0, 2}, TextRange{2, 4}));
  EXPECT_THAT(FindAll("^b", "a\nb"), ElementsAre(TextRange{2, 3}));
}

TEST(RegexTest, EmptyMatchesAreKeptButNotAfterAMatch) {
  EXPECT_THAT(FindAll("a*", "baa"), ElementsAre(TextRange{0, 0}, TextRange{1, 3}));
  EXPECT_THAT(FindAll("x*", "\xC3\xA9"), ElementsAre(TextRange{0, 0}, TextRange{2, 2}));
}

TEST(RegexTest, WhiteSpaceIsUnicodes) {
  // U+180E is no white space, U+0085 and U+3000 are.
  EXPECT_TRUE(FindAll("\\s", "\xE1\xA0\x8E").empty());
  EXPECT_THAT(FindAll("\\s+", "\xC2\x85\xE3\x80\x80"), ElementsAre(TextRange{0, 5}));
  EXPECT_THAT(FindAll("[^\\s]", " \xE1\xA0\x8E"), ElementsAre(TextRange{1, 4}));
  EXPECT_THAT(FindAll("\\S", " \xE1\xA0\x8E"), ElementsAre(TextRange{1, 4}));
}

TEST(RegexTest, RefusesSyntaxOfAnotherMeaning) {
  EXPECT_EQ(Regex::Create("\\h").status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(Regex::Create("[\\S]").status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(Regex::Create("(").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Regex::Create("\xFF").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(RegexTest, RunawayPatternsEndWithAnError) {
  const auto regex = Regex::Create("(a+)+[bc]");
  ASSERT_TRUE(regex.ok());
  std::vector<TextRange> matches;
  EXPECT_EQ(regex->FindAll("ab" + std::string(64, 'a'), matches).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(matches, ElementsAre(TextRange{0, 2}));
}

}  // namespace
}  // namespace trimtab
