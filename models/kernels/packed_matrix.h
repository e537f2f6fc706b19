// Weight matrices laid out for oneDNN's small multiplication kernels (brgemm), which ATen exports: 2 to 4 times faster
// than at::linear for the few rows of a decode step, as fast for many, with float32 sums that can be kept. Inference
// only. Const after construction; any thread.
#ifndef TRIMTAB_MODELS_KERNELS_PACKED_MATRIX_H_
#define TRIMTAB_MODELS_KERNELS_PACKED_MATRIX_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace trimtab {

// A row of a product does not depend on the other rows, bit for bit: sums run over the inner dimension in one order.
class PackedMatrix {
 public:
  static constexpr int64_t kBlock = 64;  // weight rows (columns of a product) that are packed together

  // Whether this machine has the kernels for float32 or bfloat16 (tried once).
  static bool Supports(at::ScalarType dtype);

  // weight [N, K], float32 or bfloat16; for bfloat16 K must be even.
  explicit PackedMatrix(const at::Tensor& weight);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  int64_t blocks() const { return (rows_ + kBlock - 1) / kBlock; }
  at::ScalarType dtype() const { return blocks_.scalar_type(); }
  int64_t bytes() const { return static_cast<int64_t>(blocks_.nbytes()); }

  // out[r][c] = sum over k of x[r][k] * weight[block * 64 + c][k] for `count` rows of x [count, K] (dense, in the
  // weight's type) and the block's 64 columns; zeros beyond N. out rows are `stride` floats apart. The thread must call
  // Release when it is done with a series of blocks.
  void MultiplyBlock(int64_t block, const void* x, int64_t count, float* out, int64_t stride) const;
  void Release() const { Release(dtype()); }
  // The same of 64 weight rows that somebody else has laid out: float32 [K, 64] or bfloat16 [K/2, 64, 2] at `block`.
  static void MultiplyBlock(at::ScalarType dtype, const void* block, int64_t columns, const void* x, int64_t count,
                            float* out, int64_t stride);
  static void Release(at::ScalarType dtype);
  // out [count, N] float32 = x W^T + bias (null: none), on this thread's team.
  void Multiply(const void* x, int64_t count, const float* bias, float* out) const;

  // The weight as it was given: all of it [N, K], or some rows [n, K] by their numbers [n] int64.
  at::Tensor Unpack() const;
  at::Tensor Rows(const at::Tensor& numbers) const;

 private:
  int64_t rows_, columns_;  // N, K
  at::Tensor blocks_;       // float32 [N/64, K, 64] or bfloat16 [N/64, K/2, 64, 2], N rounded up, zeros behind
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_KERNELS_PACKED_MATRIX_H_
