#include "tools/trimctl/progress_bar.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

namespace trimtab {
namespace {

TEST(ProgressBar, FormatsPhasePercentItemsAndTimeLeft) {
  EXPECT_EQ(FormatProgress({.phase = "scoring", .percent = 50, .completed = 31, .total = 62, .eta_seconds = 11.2}),
            "[############............]  50 %  scoring  31/62  12 s left");
  EXPECT_EQ(FormatProgress({.phase = "storing", .percent = 100, .eta_seconds = 3}),
            "[########################] 100 %  storing");
  EXPECT_EQ(FormatProgress({.phase = "x", .percent = -5, .eta_seconds = 90}),
            "[........................]   0 %  x  1 min 30 s left");
  EXPECT_EQ(FormatProgress({.phase = "x", .percent = 1e9}), "[########################] 100 %  x");
}

TEST(ProgressBar, RedrawsOnATerminalAndCleansUp) {
  std::ostringstream out;
  {
    ProgressBar bar(out, true);
    bar.Update({.phase = "a", .percent = 1});
    bar.Update({.phase = "a", .percent = 1});
    bar.Update({.phase = "a", .percent = 2});
  }
  const std::string first = FormatProgress({.phase = "a", .percent = 1}),
                    second = FormatProgress({.phase = "a", .percent = 2});
  EXPECT_EQ(out.str(), "\r\033[K" + first + "\r\033[K" + second + "\r\033[K");
}

TEST(ProgressBar, WritesALineForEachPhaseAndTenthElsewhere) {
  std::ostringstream out;
  {
    ProgressBar bar(out, false);
    for (const double percent : {1.0, 2.0, 9.0, 11.0, 12.0}) bar.Update({.phase = "a", .percent = percent});
    bar.Update({.phase = "b", .percent = 12});
  }
  EXPECT_EQ(out.str(), FormatProgress({.phase = "a", .percent = 1}) + "\n" +
                           FormatProgress({.phase = "a", .percent = 11}) + "\n" +
                           FormatProgress({.phase = "b", .percent = 12}) + "\n");
}

}  // namespace
}  // namespace trimtab
