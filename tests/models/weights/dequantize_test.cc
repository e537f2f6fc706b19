#include "models/weights/dequantize.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/models/weights/file_builder.h"

namespace trimtab {
namespace {

std::vector<float> Floats(ElementType type, std::string_view bytes, int64_t count) {
  const ExactBytes blocks(bytes);
  std::vector<float> out(count);
  Dequantize(type, blocks.span().data(), count, out.data());
  return out;
}

uint16_t Half(float value) { return std::bit_cast<uint16_t>(static_cast<_Float16>(value)); }

TEST(DequantizeTest, ReadsSpecialNumbers) {
  std::string halves;
  for (const uint16_t bits : {0x0000, 0x8000, 0x0001, 0x03ff, 0x7bff, 0x7c00, 0xfc00, 0x7e00}) Append(&halves, bits);
  const std::vector<float> f16 = Floats(ElementType::kF16, halves, 8);
  EXPECT_EQ(f16[0], 0.0f);
  EXPECT_TRUE(std::signbit(f16[1]));
  EXPECT_EQ(f16[2], std::ldexp(1.0f, -24));
  EXPECT_EQ(f16[3], std::ldexp(1023.0f, -24));
  EXPECT_EQ(f16[4], 65504.0f);
  EXPECT_EQ(f16[5], std::numeric_limits<float>::infinity());
  EXPECT_EQ(f16[6], -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(f16[7]));

  std::string brains;
  for (const uint16_t bits : {0x3f80, 0xc040, 0x0001, 0x7f80, 0x7fc0}) Append(&brains, bits);
  const std::vector<float> bf16 = Floats(ElementType::kBF16, brains, 5);
  EXPECT_EQ(bf16[0], 1.0f);
  EXPECT_EQ(bf16[1], -3.0f);
  EXPECT_EQ(bf16[2], std::bit_cast<float>(0x00010000u));
  EXPECT_EQ(bf16[3], std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(bf16[4]));
}

TEST(DequantizeTest, PutsLowNibblesBeforeHighOnes) {
  std::string block;
  Append(&block, Half(2.0f));
  Append(&block, Half(-1.0f));
  for (int i = 0; i < 16; ++i) block += static_cast<char>(i | (15 - i) << 4);
  const std::vector<float> out = Floats(ElementType::kQ4_1, block, 32);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(out[i], 2.0f * i - 1);
    EXPECT_EQ(out[i + 16], 2.0f * (15 - i) - 1);
  }
}

TEST(DequantizeTest, ReadsTheFifthBitOfEveryElement) {
  for (int set = 0; set < 32; ++set) {
    std::string block;
    Append(&block, Half(1.0f));
    Append(&block, uint32_t{1} << set);
    block.append(16, '\0');
    const std::vector<float> out = Floats(ElementType::kQ5_0, block, 32);
    for (int i = 0; i < 32; ++i) EXPECT_EQ(out[i], i == set ? 0.0f : -16.0f) << set << " " << i;
  }
}

// Nothing beyond the blocks is read and nothing beyond `count` is written, at any alignment (a sanitizer watches).
TEST(DequantizeTest, StaysWithinItsBuffers) {
  for (const ElementType type : kElementTypes) {
    const BlockLayout layout = BlockLayoutOf(type);
    for (const int64_t blocks : {0, 1, 3}) {
      const ExactBytes bytes(std::string(1 + blocks * layout.bytes, '\x11'));
      std::vector<float> out(blocks * layout.elements + 1, 42.0f);
      Dequantize(type, bytes.span().data() + 1, blocks * layout.elements, out.data());
      EXPECT_EQ(out.back(), 42.0f) << ElementTypeName(type);
      EXPECT_TRUE(blocks == 0 || out[out.size() - 2] != 42.0f) << ElementTypeName(type);
    }
  }
}

}  // namespace
}  // namespace trimtab
