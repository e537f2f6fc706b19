#include "models/weights/grouped_weight.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

namespace trimtab {
namespace {

// Blocks of random bits whose half scales are ordinary numbers.
std::vector<uint8_t> RandomBlocks(ElementType type, int64_t blocks, uint32_t seed) {
  std::mt19937 random(seed);
  const int64_t size = BlockLayoutOf(type).bytes;
  std::vector<uint8_t> bytes(static_cast<size_t>(blocks * size));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  const auto put_half = [&](int64_t offset) {
    const auto half = static_cast<_Float16>(0.001f * static_cast<float>(random() % 1000 + 1));
    const auto bits = std::bit_cast<uint16_t>(half);
    bytes[static_cast<size_t>(offset)] = static_cast<uint8_t>(bits & 255);
    bytes[static_cast<size_t>(offset + 1)] = static_cast<uint8_t>(bits >> 8);
  };
  for (int64_t block = 0; block < blocks; ++block) {
    put_half(block * size);
    if (type != ElementType::kQ4_0 && type != ElementType::kQ5_0 && type != ElementType::kQ8_0) {
      put_half(block * size + 2);
    }
  }
  return bytes;
}

TEST(GroupedWeightTest, HoldsTheNumbersOfItsBlocks) {
  for (ElementType type : {ElementType::kQ4_0, ElementType::kQ4_1, ElementType::kQ5_0, ElementType::kQ5_1,
                           ElementType::kQ8_0, ElementType::kQ4_K, ElementType::kQ5_K}) {
    const int64_t columns = 2 * BlockLayoutOf(type).elements, rows = 5;
    const std::vector<uint8_t> blocks = RandomBlocks(type, 2 * rows, 1);
    std::vector<float> expected(static_cast<size_t>(rows * columns));
    Dequantize(type, blocks.data(), rows * columns, expected.data());
    const std::optional<GroupedWeight> weight = GroupBlocks(type, blocks.data(), rows, columns);
    ASSERT_TRUE(weight.has_value()) << ElementTypeName(type);
    EXPECT_EQ(weight->rows, rows);
    EXPECT_EQ(weight->columns, columns);
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_LT(weight->quants[i], 1 << weight->bits);
      const float value = weight->scales[i / 32] * weight->quants[i] + weight->minimums[i / 32];
      ASSERT_NEAR(value, expected[i], 1e-4f * std::abs(weight->minimums[i / 32]) + 1e-6f) << ElementTypeName(type);
    }
  }
}

TEST(GroupedWeightTest, RefusesTypesAndNumbersWithoutAForm) {
  const std::vector<uint8_t> bytes(1024, 0);
  for (ElementType type : {ElementType::kF32, ElementType::kF16, ElementType::kBF16, ElementType::kQ6_K}) {
    EXPECT_FALSE(GroupBlocks(type, bytes.data(), 1, 256).has_value()) << ElementTypeName(type);
  }
  std::vector<uint8_t> block(34, 0);
  block[1] = 0x7c;  // infinity
  EXPECT_FALSE(GroupBlocks(ElementType::kQ8_0, block.data(), 1, 32).has_value());
  block[1] = 0x7b, block[0] = 0xff;  // 65504: the minimum is beyond a half
  EXPECT_FALSE(GroupBlocks(ElementType::kQ8_0, block.data(), 1, 32).has_value());
}

TEST(GroupedWeightTest, StacksAndPermutesRows) {
  const GroupedWeight a = *GroupBlocks(ElementType::kQ4_1, RandomBlocks(ElementType::kQ4_1, 4, 1).data(), 2, 64);
  const GroupedWeight b = *GroupBlocks(ElementType::kQ8_0, RandomBlocks(ElementType::kQ8_0, 2, 2).data(), 1, 64);
  const GroupedWeight both = StackRows({a, b});
  EXPECT_EQ(both.bits, 8);
  EXPECT_EQ(both.rows, 3);
  const GroupedWeight turned = PermuteRows(both, {2, 0, 1, 0});
  EXPECT_EQ(turned.rows, 4);
  const auto row = [](const GroupedWeight& weight, int64_t r) {
    return std::vector<uint8_t>(weight.quants.begin() + r * 64, weight.quants.begin() + (r + 1) * 64);
  };
  EXPECT_EQ(row(turned, 0), row(b, 0));
  EXPECT_EQ(row(turned, 1), row(a, 0));
  EXPECT_EQ(row(turned, 2), row(a, 1));
  EXPECT_EQ(row(turned, 3), row(a, 0));
  EXPECT_EQ(turned.scales[0], b.scales[0]);
  EXPECT_EQ(turned.minimums[7], a.minimums[1]);
}

}  // namespace
}  // namespace trimtab
