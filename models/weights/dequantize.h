// The element types of model files and their conversion to float. Pure functions without torch, called by the readers
// of this folder. Any thread.
#ifndef TRIMTAB_MODELS_WEIGHTS_DEQUANTIZE_H_
#define TRIMTAB_MODELS_WEIGHTS_DEQUANTIZE_H_

#include <cstdint>
#include <string_view>

namespace trimtab {

// Quantised types store blocks of consecutive elements of a row with a common scale; formats of ggml
// (ggml-common.h: block_q4_0 and so on).
enum class ElementType { kF32, kF16, kBF16, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ4_K, kQ5_K, kQ6_K };

inline constexpr ElementType kElementTypes[] = {
    ElementType::kF32,  ElementType::kF16,  ElementType::kBF16, ElementType::kQ4_0,
    ElementType::kQ4_1, ElementType::kQ5_0, ElementType::kQ5_1, ElementType::kQ8_0,
    ElementType::kQ4_K, ElementType::kQ5_K, ElementType::kQ6_K,
};

struct BlockLayout {
  int64_t elements;  // per block
  int64_t bytes;     // per block
};

BlockLayout BlockLayoutOf(ElementType type);
std::string_view ElementTypeName(ElementType type);  // "F32", "Q4_1", ...

// Writes `count` floats to `out` from `count / elements` blocks at `blocks` (little-endian, any alignment). `count`
// must be a multiple of the block's elements. Equal bit for bit to gguf-py's `dequantize`, except for payloads of NaN.
void Dequantize(ElementType type, const uint8_t* blocks, int64_t count, float* out);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_WEIGHTS_DEQUANTIZE_H_
