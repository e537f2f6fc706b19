#include "models/token_layout.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace trimtab {
namespace {

TEST(TokenLayoutTest, BranchesContinueThePromptsPositions) {
  std::vector<SequenceSpan> spans(2);
  spans[0].length = 7;
  spans[0].branches = {2, 2};
  spans[1].length = 2;
  const TokenLayout layout = TokenLayout::Dense(spans);
  EXPECT_EQ(layout.num_tokens, 9);
  EXPECT_EQ(layout.sequences[1].begin, 7);
  EXPECT_EQ(layout.sequences[0].prompt_length(), 3);
  EXPECT_TRUE(at::equal(layout.positions, at::tensor({0, 1, 2, 3, 4, 3, 4, 0, 1}, at::kLong)));
}

TEST(TokenLayoutTest, SlotsFollowTheBlockTable) {
  std::vector<SequenceSpan> spans(2);
  spans[0].length = 3;
  spans[0].context = 3;
  spans[0].block_table = {5, 2};
  spans[1].length = 1;
  spans[1].block_table = {0};
  const TokenLayout layout = TokenLayout::Paged(spans, 4);
  EXPECT_TRUE(at::equal(layout.positions, at::tensor({3, 4, 5, 0}, at::kLong)));
  EXPECT_TRUE(at::equal(layout.slots, at::tensor({23, 8, 9, 0}, at::kLong)));
  EXPECT_EQ(layout.sequences[1].begin, 3);
}

}  // namespace
}  // namespace trimtab
