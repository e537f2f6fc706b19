#include "tools/trimctl/text.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace trimtab {
namespace {

TEST(Text, StylesOnlyWithColor) {
  EXPECT_EQ(Styled("a", "31", true), "\033[31ma\033[0m");
  EXPECT_EQ(Styled("a", "31", false), "a");
  EXPECT_EQ(Styled("a", "", true), "a");
  EXPECT_EQ(Styled("", "31", true), "");
}

TEST(Text, TakesControlCharactersAway) {
  EXPECT_EQ(Printable("a\033[2Jb\x7F"), "a\uFFFD[2Jb\uFFFD");
  EXPECT_EQ(Printable("\xC2\x9B"
                      "31m"),
            "\uFFFD31m");  // C1: CSI in one character
  EXPECT_EQ(Printable("\xC2\xA0é€🌱"), "\xC2\xA0é€🌱");
  EXPECT_EQ(Printable("a\n\tb"), "a\\n\\tb");
  EXPECT_EQ(Printable("a\n\tb\r", true), "a\n\tb\uFFFD");
}

TEST(Text, CountsAndCutsCharactersNotBytes) {
  EXPECT_EQ(DisplayWidth("é€a"), 3u);
  EXPECT_EQ(Shorten("ééééé", 5), "ééééé");
  EXPECT_EQ(Shorten("éééééé", 5), "éé...");
  EXPECT_EQ(Shorten("abc", 2), "..");
}

TEST(Text, WrapsAtSpacesAndLineFeeds) {
  EXPECT_EQ(Wrap("one two three", 7), (std::vector<std::string>{"one two", "three"}));
  EXPECT_EQ(Wrap("a\n\nb", 10), (std::vector<std::string>{"a", "", "b"}));
  EXPECT_EQ(Wrap("éééééé", 4), (std::vector<std::string>{"éééé", "éé"}));
  EXPECT_EQ(Wrap("", 4), (std::vector<std::string>{""}));
  EXPECT_EQ(Wrap("abcd efgh", 4), (std::vector<std::string>{"abcd", "efgh"}));
}

TEST(Text, AlignsTables) {
  EXPECT_EQ(FormatTable({{"NAME", "GAIN"}, {"calm", "+0.1"}, {"é", "-10.25"}}, false),
            "NAME    GAIN\n"
            "calm    +0.1\n"
            "é     -10.25\n");
  EXPECT_EQ(FormatTable({{"A", "B"}, {"x\ny", "z"}}, true),
            "\033[1mA     B\033[0m\n"
            "x\\ny  z\n");
}

TEST(Text, AlignsFieldsAndLeavesEmptyOnesOut) {
  EXPECT_EQ(FormatFields({{"a", "1"}, {"gone", ""}, {"long", "2"}}), "a:     1\nlong:  2\n");
}

TEST(Text, FormatsNumbersTimesAndNames) {
  EXPECT_EQ(ShortName("models/m/objectives/calm"), "calm");
  EXPECT_EQ(ShortName("calm"), "calm");
  EXPECT_EQ(Signed(0.0414), "+0.041");
  EXPECT_EQ(Signed(-2, 1), "-2.0");
  EXPECT_EQ(FormatDuration(0.0123), "12 ms");
  EXPECT_EQ(FormatDuration(12.34), "12.3 s");
  EXPECT_EQ(FormatDuration(245), "4 min 5 s");
  google::protobuf::Timestamp time;
  EXPECT_EQ(FormatTime(time), "");
  time.set_seconds(86'400);
  EXPECT_EQ(FormatTime(time), "1970-01-02 00:00:00 UTC");
}

}  // namespace
}  // namespace trimtab
