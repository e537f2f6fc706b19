#include "models/weights/grouped_weight.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "models/weights/k_scale.h"

namespace trimtab {
namespace {

constexpr float kLargestHalf = 65504.0f;

float ReadHalf(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return static_cast<float>(std::bit_cast<_Float16>(bits));
}

struct Group {
  uint8_t* quants;  // [32]
  float scale = 0, minimum = 0;
};

// 16 bytes: elements 0..15 in the low halves, 16..31 in the high ones.
void Nibbles(const uint8_t* in, uint8_t* quants) {
  for (int i = 0; i < 16; ++i) {
    quants[i] = in[i] & 15;
    quants[i + 16] = in[i] >> 4;
  }
}

void FifthBits(const uint8_t* in, uint8_t* quants) {
  uint32_t fifth;
  std::memcpy(&fifth, in, sizeof(fifth));
  for (int i = 0; i < 32; ++i) quants[i] = static_cast<uint8_t>(quants[i] | (fifth >> i & 1) << 4);
}

// A block of 32 elements; layouts in dequantize.cc.
void ReadBlock(ElementType type, const uint8_t* in, Group& group) {
  group.scale = ReadHalf(in);
  switch (type) {
    case ElementType::kQ4_0:
      Nibbles(in + 2, group.quants);
      group.minimum = -8 * group.scale;
      return;
    case ElementType::kQ4_1:
      Nibbles(in + 4, group.quants);
      group.minimum = ReadHalf(in + 2);
      return;
    case ElementType::kQ5_0:
      Nibbles(in + 6, group.quants);
      FifthBits(in + 2, group.quants);
      group.minimum = -16 * group.scale;
      return;
    case ElementType::kQ5_1:
      Nibbles(in + 8, group.quants);
      FifthBits(in + 4, group.quants);
      group.minimum = ReadHalf(in + 2);
      return;
    default:  // Q8_0
      for (int i = 0; i < 32; ++i) group.quants[i] = static_cast<uint8_t>(in[2 + i] ^ 0x80);
      group.minimum = -128 * group.scale;
  }
}

// Sub-block `sub` (0..7) of a block of Q4_K or Q5_K.
void ReadSubBlock(ElementType type, const uint8_t* in, int sub, Group& group) {
  const KScale packed = UnpackKScale(in + 4, sub);
  group.scale = ReadHalf(in) * static_cast<float>(packed.scale);
  group.minimum = -ReadHalf(in + 2) * static_cast<float>(packed.minimum);
  const bool five = type == ElementType::kQ5_K;
  const uint8_t* chunk = in + (five ? 48 : 16) + sub / 2 * 32;
  for (int i = 0; i < 32; ++i) {
    int quant = chunk[i] >> (sub % 2 * 4) & 15;
    if (five) quant |= (in[16 + i] >> sub & 1) << 4;
    group.quants[i] = static_cast<uint8_t>(quant);
  }
}

}  // namespace

int GroupedBits(ElementType type) {
  switch (type) {
    case ElementType::kQ4_0:
    case ElementType::kQ4_1:
    case ElementType::kQ4_K:
      return 4;
    case ElementType::kQ5_0:
    case ElementType::kQ5_1:
    case ElementType::kQ5_K:
    case ElementType::kQ8_0:
      return 8;
    default:
      return 0;
  }
}

std::optional<GroupedWeight> GroupBlocks(ElementType type, const uint8_t* blocks, int64_t rows, int64_t columns) {
  GroupedWeight weight{.bits = GroupedBits(type), .rows = rows, .columns = columns};
  const BlockLayout layout = BlockLayoutOf(type);
  if (weight.bits == 0 || columns % layout.elements != 0) return std::nullopt;
  const int64_t groups = rows * columns / kWeightGroup;
  weight.quants.resize(static_cast<size_t>(rows * columns));
  weight.scales.resize(static_cast<size_t>(groups));
  weight.minimums.resize(static_cast<size_t>(groups));
  const int64_t per_block = layout.elements / kWeightGroup;
  for (int64_t i = 0; i < groups; ++i) {
    Group group{.quants = weight.quants.data() + i * kWeightGroup};
    const uint8_t* block = blocks + i / per_block * layout.bytes;
    if (per_block == 1) {
      ReadBlock(type, block, group);
    } else {
      ReadSubBlock(type, block, static_cast<int>(i % per_block), group);
    }
    if (!(std::abs(group.scale) <= kLargestHalf) || !(std::abs(group.minimum) <= kLargestHalf)) return std::nullopt;
    weight.scales[static_cast<size_t>(i)] = group.scale;
    weight.minimums[static_cast<size_t>(i)] = group.minimum;
  }
  return weight;
}

GroupedWeight StackRows(const std::vector<GroupedWeight>& parts) {
  GroupedWeight stacked{.bits = 4, .columns = parts.at(0).columns};
  for (const GroupedWeight& part : parts) {
    stacked.bits = std::max(stacked.bits, part.bits);
    stacked.rows += part.rows;
    stacked.quants.insert(stacked.quants.end(), part.quants.begin(), part.quants.end());
    stacked.scales.insert(stacked.scales.end(), part.scales.begin(), part.scales.end());
    stacked.minimums.insert(stacked.minimums.end(), part.minimums.begin(), part.minimums.end());
  }
  return stacked;
}

GroupedWeight PermuteRows(const GroupedWeight& weight, const std::vector<int64_t>& order) {
  GroupedWeight permuted{.bits = weight.bits, .rows = static_cast<int64_t>(order.size()), .columns = weight.columns};
  const auto append = [](const auto& from, int64_t row, int64_t width, auto& to) {
    to.insert(to.end(), from.begin() + row * width, from.begin() + (row + 1) * width);
  };
  for (int64_t row : order) {
    append(weight.quants, row, weight.columns, permuted.quants);
    append(weight.scales, row, weight.columns / kWeightGroup, permuted.scales);
    append(weight.minimums, row, weight.columns / kWeightGroup, permuted.minimums);
  }
  return permuted;
}

}  // namespace trimtab
