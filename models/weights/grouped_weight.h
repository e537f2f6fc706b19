// A quantised matrix as its file holds it, in one form for all types: small integers with a scale and a minimum per 32
// elements. What the integer kernels are packed from. No torch. Any thread.
#ifndef TRIMTAB_MODELS_WEIGHTS_GROUPED_WEIGHT_H_
#define TRIMTAB_MODELS_WEIGHTS_GROUPED_WEIGHT_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "models/weights/dequantize.h"

namespace trimtab {

inline constexpr int64_t kWeightGroup = 32;  // elements of a row with a common scale

// weight[r][c] = scales[r][c / 32] * quants[r][c] + minimums[r][c / 32], with quants below 2^bits.
struct GroupedWeight {
  int bits = 4;                         // 4 or 8
  int64_t rows = 0, columns = 0;        // columns: a multiple of 32
  std::vector<uint8_t> quants;          // [rows, columns]
  std::vector<float> scales, minimums;  // [rows, columns / 32]
};

// Bits of a quant of this type in grouped form, 4 or 8; 0 when the type has no such form.
int GroupedBits(ElementType type);
// The elements of `count / elements` blocks (as for Dequantize) as one row. Nullopt when the type has no such form (the
// floating types; Q6_K, whose groups have 16 elements) or a scale or minimum is beyond what a half can hold. Exact for
// Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0: the same numbers as Dequantize up to the rounding of one product and one sum; Q4_K
// and Q5_K too, before scales are narrowed to halves.
std::optional<GroupedWeight> GroupBlocks(ElementType type, const uint8_t* blocks, int64_t rows, int64_t columns);

// Puts matrices of equal width below each other; the wider quants decide `bits`.
GroupedWeight StackRows(const std::vector<GroupedWeight>& parts);
// Row i of the result is row order[i].
GroupedWeight PermuteRows(const GroupedWeight& weight, const std::vector<int64_t>& order);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_WEIGHTS_GROUPED_WEIGHT_H_
