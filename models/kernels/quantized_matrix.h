// Products with weights that stay in their file's 4 or 8 bits: rows are quantised to 8 bits per group of 32 on the way
// in, sums are integers within a group and float32 across groups. Const after construction; any thread. The slow
// portable form is the reference; the fast one wants AVX-512 VNNI.
#ifndef TRIMTAB_MODELS_KERNELS_QUANTIZED_MATRIX_H_
#define TRIMTAB_MODELS_KERNELS_QUANTIZED_MATRIX_H_

#include <ATen/core/Tensor.h>
#include <c10/util/Half.h>

#include <cstdint>
#include <memory>

#include "models/weights/grouped_weight.h"

namespace trimtab {

// Rows quantised as x[c] ~ scale[c / 32] * value[c]: a view of the caller's memory.
struct QuantizedRows {
  int8_t* values;  // [rows, columns]
  float* scales;   // [rows, columns / 32]: largest magnitude of the group / 127
  float* sums;     // [rows, columns / 32]: scale * sum of the group's values
  int64_t columns;
};

// Quantises `groups` groups of 32 floats each, rounding to nearest even.
void QuantizeGroups(const float* x, int64_t groups, int8_t* values, float* scales, float* sums);

// A row of a product does not depend on the other rows, bit for bit, nor on the form of the kernel.
class QuantizedMatrix {
 public:
  static constexpr int64_t kStrip = 32;  // weight rows (columns of a product) that are packed together

  // Whether this processor has the fast kernels.
  static bool Supported();

  // Scales and minimums are narrowed to halves.
  explicit QuantizedMatrix(const GroupedWeight& weight);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  int64_t strips() const { return (rows_ + kStrip - 1) / kStrip; }
  int64_t bytes() const { return strips() * strip_bytes(); }

  // out[r][c] = sum over k of x[first + r][k] * weight[strip * 32 + c][k] for `count` rows and the strip's 32 columns;
  // beyond rows() they are zero. out rows are `stride` floats apart.
  void MultiplyStrip(int64_t strip, const QuantizedRows& x, int64_t first, int64_t count, float* out,
                     int64_t stride) const;
  // out [count, rows()] = x W^T + bias (null: none), on this thread's team.
  void Multiply(const QuantizedRows& x, int64_t count, const float* bias, float* out) const;

  // The weight's rows [count, columns] float32 by number.
  at::Tensor Rows(const int64_t* numbers, int64_t count) const;
  // All of them, as float32 or bfloat16, on this thread's team.
  at::Tensor Unpack(at::ScalarType type) const;
  // Weight rows [64 block, 64 block + 64) in the order of PackedMatrix, zeros beyond rows(): float32 [columns, 64] or
  // bfloat16 [columns / 2, 64, 2].
  void UnpackBlock(int64_t block, at::ScalarType type, void* out) const;

 private:
  friend void MultiplyStripReference(const QuantizedMatrix& matrix, int64_t strip, const QuantizedRows& x,
                                     int64_t first, int64_t count, float* out, int64_t stride);
  template <typename T>
  void UnpackStrip(int64_t strip, T* out) const;  // its rows of [rows, columns]
  int64_t strip_bytes() const { return columns_ / kWeightGroup * 2 * half_bytes(); }
  int64_t half_bytes() const { return (bits_ == 4 ? 256 : 512) + 64; }  // of a group of 16 weight rows
  const uint8_t* half(int64_t strip, int64_t group, int64_t half) const {
    return data_.get() + strip * strip_bytes() + (group * 2 + half) * half_bytes();
  }

  int bits_;
  int64_t rows_, columns_;
  // [strips][groups][2 halves]: quants, then 16 half scales, then 16 half minimums. Quants in the order that the
  // instruction takes: byte 4c + b of 64 belongs to weight row c and column 4j + b; with 4 bits the low halves are step
  // j = 2i and the high ones j = 2i + 1 of 64-byte line i.
  std::shared_ptr<uint8_t[]> data_;
};

// The same as MultiplyStrip by plain loops.
void MultiplyStripReference(const QuantizedMatrix& matrix, int64_t strip, const QuantizedRows& x, int64_t first,
                            int64_t count, float* out, int64_t stride);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_KERNELS_QUANTIZED_MATRIX_H_
