// One head of one row of an activation, on its way into attention and out of it. Called by PagedAttention and KvCache
// from any thread.
#ifndef TRIMTAB_MODELS_ATTENTION_HEAD_ROW_H_
#define TRIMTAB_MODELS_ATTENTION_HEAD_ROW_H_

#include <c10/util/BFloat16.h>

#include <cstdint>

#include "models/kernels/cpu/simd.h"

namespace trimtab {

// [rows, heads, d] float32 or bfloat16, dense in the last dimension; strides in elements.
struct HeadRows {
  const void* data;
  bool narrow;  // bfloat16
  int64_t row_stride, head_stride;
};

template <typename From, typename To>
void ConvertRow(const From* from, int64_t count, float factor, To* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store8(to + i, Load8(from + i) * factor);
  for (; i < count; ++i) to[i] = static_cast<To>(static_cast<float>(from[i]) * factor);
}

inline void LoadHead(const HeadRows& rows, int64_t row, int64_t head, int64_t d, float* to) {
  const int64_t at = row * rows.row_stride + head * rows.head_stride;
  if (rows.narrow) {
    ConvertRow(static_cast<const c10::BFloat16*>(rows.data) + at, d, 1, to);
  } else {
    ConvertRow(static_cast<const float*>(rows.data) + at, d, 1, to);
  }
}

// Rotates the halves of x [2 * half] by the angles of its position, cos and sin [half].
inline void RotateHalves(const float* cos, const float* sin, int64_t half, float* x) {
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const Float8 a = Load8(x + i), b = Load8(x + half + i), c = Load8(cos + i), s = Load8(sin + i);
    Store8(x + i, a * c - b * s);
    Store8(x + half + i, b * c + a * s);
  }
  for (; i < half; ++i) {
    const float a = x[i], b = x[half + i];
    x[i] = a * cos[i] - b * sin[i];
    x[half + i] = b * cos[i] + a * sin[i];
  }
}

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_ATTENTION_HEAD_ROW_H_
