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
  // Whether this machine has the kernels for float32 or bfloat16 (tried once).
  static bool Supports(at::ScalarType dtype);

  // weight [N, K], float32 or bfloat16; for bfloat16 K must be even.
  explicit PackedMatrix(const at::Tensor& weight);

  // x [T, K] in the weight's type, bias [N] or undefined -> x W^T + bias [T, N] in `out_type` (the weight's type or
  // float32). Sums in float32.
  at::Tensor Multiply(const at::Tensor& x, const at::Tensor& bias, at::ScalarType out_type) const;

 private:
  template <typename T, typename Out>
  void Run(const at::Tensor& x, const float* bias, at::Tensor& out) const;

  int64_t rows_, columns_;  // N, K
  at::Tensor blocks_;       // float32 [N/64, K, 64] or bfloat16 [N/64, K/2, 64, 2], N rounded up, zeros behind
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_KERNELS_PACKED_MATRIX_H_
