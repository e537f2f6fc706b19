#include "models/tokenizer/stop_matcher.h"

#include <gtest/gtest.h>

#include <optional>
#include <random>

namespace trimtab {
namespace {

// What comes before the stop sequence that ends first in the whole text, the longest of those; nothing without one.
std::optional<std::string> ReferenceStop(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (!stop.empty() && stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return text.substr(0, end - longest);
  }
  return std::nullopt;
}

TEST(StopMatcherTest, WithoutSequencesNothingIsHeldBack) {
  StopMatcher matcher({"", ""});
  EXPECT_EQ(matcher.Push("text").text, "text");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, FindsAStopAcrossPieces) {
  StopMatcher matcher({"\n\nUser:"});
  EXPECT_EQ(matcher.Push("Hello\n").text, "Hello");
  EXPECT_EQ(matcher.Push("\nUs").text, "");
  const StopMatcher::Result result = matcher.Push("er: more");
  EXPECT_TRUE(result.stopped);
  EXPECT_EQ(result.text, "");
  EXPECT_TRUE(matcher.Push("after").stopped);
  EXPECT_EQ(matcher.Push("after").text, "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, GivesOutWhatTurnsOutToBeNoStop) {
  StopMatcher matcher({"abac"});
  EXPECT_EQ(matcher.Push("xaba").text, "x");
  EXPECT_EQ(matcher.Push("b").text, "ab");
  EXPECT_EQ(matcher.Flush(), "ab");
}

TEST(StopMatcherTest, TheFirstCompleteSequenceCountsAndTheLongestOfThose) {
  StopMatcher first({"abcd", "bc"});
  EXPECT_EQ(first.Push("xabcd").text, "xa");
  StopMatcher longest({"c", "abc"});
  EXPECT_EQ(longest.Push("xabc").text, "x");
}

TEST(StopMatcherTest, RandomPiecesAgreeWithTheWholeText) {
  std::mt19937 random(11);
  const auto word = [&](int max) {
    std::string text;
    for (int left = random() % (max + 1); left > 0; --left) text += "abc"[random() % 3];
    return text;
  };
  int stopped_rounds = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops;
    for (int left = random() % 4; left > 0; --left) stops.push_back(word(6));
    const std::string text = word(40);
    StopMatcher matcher(stops);
    std::string out;
    bool stopped = false;
    for (size_t at = 0; at < text.size();) {
      const size_t length = 1 + random() % 5;
      const StopMatcher::Result result = matcher.Push(text.substr(at, length));
      out += result.text;
      stopped = result.stopped;
      at += length;
    }
    out += matcher.Flush();
    const std::optional<std::string> expected = ReferenceStop(text, stops);
    ASSERT_EQ(stopped, expected.has_value()) << text;
    ASSERT_EQ(out, expected.value_or(text)) << text;
    stopped_rounds += stopped;
  }
  EXPECT_GT(stopped_rounds, 5000);
}

}  // namespace
}  // namespace trimtab
