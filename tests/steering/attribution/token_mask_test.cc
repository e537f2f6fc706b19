#include "steering/attribution/token_mask.h"

#include <gtest/gtest.h>

namespace trimtab {
namespace {

const std::vector<int64_t> kCandidates = {3, 4, 5, 8, 9, 10, 11, 12, 13, 14};

TEST(SelectSidesTest, TakesTheLargestOfEachSign) {
  const std::vector<double> scores = {0.5, -1, 2, 0, 0.1, -0.2, 3, -5, 0, 0};
  EXPECT_EQ(SelectSides(scores, kCandidates, 2, 1), (MaskedSides{{5, 11}, {4, 12}}));
  EXPECT_EQ(SelectSides(scores, kCandidates, 10, 1), (MaskedSides{{3, 5, 9, 11}, {4, 10, 12}}));
}

TEST(SelectSidesTest, RhoLimitsEachSide) {
  const std::vector<double> scores = {9, 8, 7, 6, 5, 4, 3, 2, 1, -1};
  EXPECT_EQ(SelectSides(scores, kCandidates, 10, 0.3), (MaskedSides{{3, 4, 5}, {14}}));  // ceil(0.3 * 10) = 3
  EXPECT_EQ(SelectSides(scores, kCandidates, 10, 0.31), (MaskedSides{{3, 4, 5, 8}, {14}}));
  EXPECT_EQ(SelectSides({1}, {7}, 10, 0.01), (MaskedSides{{7}, {}}));
}

TEST(SelectSidesTest, TiesGoToTheEarlierPosition) {
  EXPECT_EQ(SelectSides({1, 1, 1, -1, -1}, {1, 2, 3, 4, 5}, 2, 1), (MaskedSides{{1, 2}, {4, 5}}));
  EXPECT_EQ(SelectSides({0, 0}, {1, 2}, 2, 1), MaskedSides());
}

TEST(SelectionOverlapTest, CountsBothSides) {
  EXPECT_EQ(SelectionOverlap({{1, 2}, {3}}, {{1, 2}, {3}}), 1);
  EXPECT_EQ(SelectionOverlap({{1, 2}, {3, 4}}, {{2, 5}, {1, 4}}), 0.5);
  EXPECT_EQ(SelectionOverlap({{1}, {}}, {{}, {1}}), 0);
  EXPECT_EQ(SelectionOverlap({}, {}), 1);
}

}  // namespace
}  // namespace trimtab
