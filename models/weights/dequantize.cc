// Compiled without contraction of a * b + c (BUILD): a fused multiply-add would differ from gguf-py in the last bit.
#include "models/weights/dequantize.h"

#include <bit>
#include <cstring>

#include "models/weights/k_scale.h"

namespace trimtab {
namespace {

static_assert(std::endian::native == std::endian::little, "model files are little-endian");

template <typename T>
T ReadAt(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

float ReadHalf(const uint8_t* bytes) { return static_cast<float>(std::bit_cast<_Float16>(ReadAt<uint16_t>(bytes))); }

// One function per type converts one block. The layouts in the comments name the fields in the order of the file.

// half scale; 16 bytes of two 4-bit numbers: the low ones are elements 0..15, the high ones 16..31.
void BlockQ4_0(const uint8_t* in, float* out) {
  const float scale = ReadHalf(in);
  const uint8_t* quants = in + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>((quants[i] & 15) - 8) * scale;
    out[i + 16] = static_cast<float>((quants[i] >> 4) - 8) * scale;
  }
}

// half scale; half minimum; 16 bytes as in Q4_0.
void BlockQ4_1(const uint8_t* in, float* out) {
  const float scale = ReadHalf(in), minimum = ReadHalf(in + 2);
  const uint8_t* quants = in + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>(quants[i] & 15) * scale + minimum;
    out[i + 16] = static_cast<float>(quants[i] >> 4) * scale + minimum;
  }
}

// half scale; 32 fifth bits, bit i for element i; 16 bytes as in Q4_0.
void BlockQ5_0(const uint8_t* in, float* out) {
  const float scale = ReadHalf(in);
  const uint32_t fifth = ReadAt<uint32_t>(in + 2);
  const uint8_t* quants = in + 6;
  for (int i = 0; i < 16; ++i) {
    const int low = static_cast<int>((quants[i] & 15) | ((fifth >> i & 1) << 4));
    const int high = static_cast<int>((quants[i] >> 4) | ((fifth >> (i + 16) & 1) << 4));
    out[i] = static_cast<float>(low - 16) * scale;
    out[i + 16] = static_cast<float>(high - 16) * scale;
  }
}

// half scale; half minimum; 32 fifth bits; 16 bytes as in Q4_0.
void BlockQ5_1(const uint8_t* in, float* out) {
  const float scale = ReadHalf(in), minimum = ReadHalf(in + 2);
  const uint32_t fifth = ReadAt<uint32_t>(in + 4);
  const uint8_t* quants = in + 8;
  for (int i = 0; i < 16; ++i) {
    const int low = static_cast<int>((quants[i] & 15) | ((fifth >> i & 1) << 4));
    const int high = static_cast<int>((quants[i] >> 4) | ((fifth >> (i + 16) & 1) << 4));
    out[i] = static_cast<float>(low) * scale + minimum;
    out[i + 16] = static_cast<float>(high) * scale + minimum;
  }
}

// half scale; 32 signed bytes.
void BlockQ8_0(const uint8_t* in, float* out) {
  const float scale = ReadHalf(in);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(static_cast<int8_t>(in[2 + i])) * scale;
}

// Sub-blocks 2c and 2c + 1 of 32 elements share the 32 bytes of chunk c: low 4 bits, then high 4 bits. Bit s of
// `fifth_bits[i]` is the fifth bit of element i in sub-block s; null for Q4_K.
void BlockK(const uint8_t* in, const uint8_t* fifth_bits, const uint8_t* quants, float* out) {
  const float scale = ReadHalf(in), minimum = ReadHalf(in + 2);
  for (int sub = 0; sub < 8; ++sub) {
    const KScale packed = UnpackKScale(in + 4, sub);
    const float sub_scale = scale * static_cast<float>(packed.scale);
    const float sub_minimum = minimum * static_cast<float>(packed.minimum);
    const uint8_t* chunk = quants + sub / 2 * 32;
    const int shift = sub % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      int quant = chunk[i] >> shift & 15;
      if (fifth_bits != nullptr) quant |= (fifth_bits[i] >> sub & 1) << 4;
      out[sub * 32 + i] = sub_scale * static_cast<float>(quant) - sub_minimum;
    }
  }
}

// half scale; half minimum; 12 bytes of scales; 128 bytes of quants.
void BlockQ4_K(const uint8_t* in, float* out) { BlockK(in, nullptr, in + 16, out); }

// half scale; half minimum; 12 bytes of scales; 32 bytes of fifth bits; 128 bytes of quants.
void BlockQ5_K(const uint8_t* in, float* out) { BlockK(in, in + 16, in + 48, out); }

// 128 bytes of low 4 bits; 64 bytes of high 2 bits; 16 signed scales, one per 16 elements; half scale.
void BlockQ6_K(const uint8_t* in, float* out) {
  const float scale = ReadHalf(in + 208);
  for (int half = 0; half < 2; ++half) {  // 128 elements each
    const uint8_t* low = in + half * 64;
    const uint8_t* high = in + 128 + half * 32;
    const uint8_t* scales = in + 192 + half * 8;
    for (int part = 0; part < 4; ++part) {  // 32 elements each
      for (int i = 0; i < 32; ++i) {
        const int nibble = low[part % 2 * 32 + i] >> (part / 2 * 4) & 15;
        const int quant = (nibble | (high[i] >> (part * 2) & 3) << 4) - 32;
        const float sub_scale = scale * static_cast<float>(static_cast<int8_t>(scales[part * 2 + i / 16]));
        out[half * 128 + part * 32 + i] = sub_scale * static_cast<float>(quant);
      }
    }
  }
}

template <void (*Block)(const uint8_t*, float*)>
void EachBlock(BlockLayout layout, const uint8_t* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += layout.elements, in += layout.bytes) Block(in, out + i);
}

}  // namespace

BlockLayout BlockLayoutOf(ElementType type) {
  switch (type) {
    case ElementType::kF32:
      return {1, 4};
    case ElementType::kF16:
    case ElementType::kBF16:
      return {1, 2};
    case ElementType::kQ4_0:
      return {32, 18};
    case ElementType::kQ4_1:
      return {32, 20};
    case ElementType::kQ5_0:
      return {32, 22};
    case ElementType::kQ5_1:
      return {32, 24};
    case ElementType::kQ8_0:
      return {32, 34};
    case ElementType::kQ4_K:
      return {256, 144};
    case ElementType::kQ5_K:
      return {256, 176};
    case ElementType::kQ6_K:
      return {256, 210};
  }
  __builtin_unreachable();
}

std::string_view ElementTypeName(ElementType type) {
  switch (type) {
    case ElementType::kF32:
      return "F32";
    case ElementType::kF16:
      return "F16";
    case ElementType::kBF16:
      return "BF16";
    case ElementType::kQ4_0:
      return "Q4_0";
    case ElementType::kQ4_1:
      return "Q4_1";
    case ElementType::kQ5_0:
      return "Q5_0";
    case ElementType::kQ5_1:
      return "Q5_1";
    case ElementType::kQ8_0:
      return "Q8_0";
    case ElementType::kQ4_K:
      return "Q4_K";
    case ElementType::kQ5_K:
      return "Q5_K";
    case ElementType::kQ6_K:
      return "Q6_K";
  }
  __builtin_unreachable();
}

void Dequantize(ElementType type, const uint8_t* blocks, int64_t count, float* out) {
  const BlockLayout layout = BlockLayoutOf(type);
  switch (type) {
    case ElementType::kF32:
      if (count > 0) std::memcpy(out, blocks, static_cast<size_t>(count) * sizeof(float));
      return;
    case ElementType::kF16:
      for (int64_t i = 0; i < count; ++i) out[i] = ReadHalf(blocks + 2 * i);
      return;
    case ElementType::kBF16:
      for (int64_t i = 0; i < count; ++i) {
        out[i] = std::bit_cast<float>(static_cast<uint32_t>(ReadAt<uint16_t>(blocks + 2 * i)) << 16);
      }
      return;
    case ElementType::kQ4_0:
      return EachBlock<BlockQ4_0>(layout, blocks, count, out);
    case ElementType::kQ4_1:
      return EachBlock<BlockQ4_1>(layout, blocks, count, out);
    case ElementType::kQ5_0:
      return EachBlock<BlockQ5_0>(layout, blocks, count, out);
    case ElementType::kQ5_1:
      return EachBlock<BlockQ5_1>(layout, blocks, count, out);
    case ElementType::kQ8_0:
      return EachBlock<BlockQ8_0>(layout, blocks, count, out);
    case ElementType::kQ4_K:
      return EachBlock<BlockQ4_K>(layout, blocks, count, out);
    case ElementType::kQ5_K:
      return EachBlock<BlockQ5_K>(layout, blocks, count, out);
    case ElementType::kQ6_K:
      return EachBlock<BlockQ6_K>(layout, blocks, count, out);
  }
}

}  // namespace trimtab
