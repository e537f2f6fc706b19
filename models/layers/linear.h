// Dense layers y = x W^T + b over weights in the form that pays: packed float32 or bfloat16, or the 4 or 8 bits of the
// model's file. One form is kept; gradients make the plain weight from it when they need it. Const after construction;
// any thread.
#ifndef TRIMTAB_MODELS_LAYERS_LINEAR_H_
#define TRIMTAB_MODELS_LAYERS_LINEAR_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "models/kernels/packed_matrix.h"
#include "models/kernels/quantized_matrix.h"
#include "models/kernels/row_buffer.h"
#include "models/model_spec.h"

namespace trimtab {

class Linear {
 public:
  Linear() = default;
  // weight [N, K], float32 or bfloat16; bias [N] or undefined.
  explicit Linear(const at::Tensor& weight, at::Tensor bias = {});
  // Integers; gradients see them as `plain_type`.
  Linear(const GroupedWeight& weight, at::Tensor bias, at::ScalarType plain_type);

  int64_t rows() const { return rows_; }        // N
  int64_t columns() const { return columns_; }  // K
  at::ScalarType plain_type() const { return plain_type_; }
  int64_t bytes() const;  // of the weight as it is kept

  // Inference: rows of x in a form of input() -> out [count, N] float32. A row does not depend on the others, bit for
  // bit, where the processor has the kernels (has_blocks).
  RowForm input(Arithmetic arithmetic = Arithmetic::kIntegers) const;
  void Multiply(const RowView& x, int64_t count, float* out) const;
  // Whether MultiplyBlock works: `out` gets 64 columns of x W^T (no bias), zeros beyond N.
  bool has_blocks() const { return plain_ == nullptr; }
  void MultiplyBlock(int64_t block, const RowView& x, int64_t first, int64_t count, float* out, int64_t stride) const;

  // Differentiable: x [T, K] in the plain type -> [T, N] in that type. Makes the plain weight at each call.
  at::Tensor operator()(const at::Tensor& x) const;
  at::Tensor weight() const;                         // [N, K] in the plain type
  at::Tensor Rows(const at::Tensor& numbers) const;  // numbers [n] int64 -> rows of the weight [n, K] float32
  const at::Tensor& bias() const { return bias_; }   // [N] float32 or undefined

 private:
  int64_t rows_ = 0, columns_ = 0;
  at::ScalarType plain_type_ = at::kFloat;
  at::Tensor bias_;
  // One of them.
  std::shared_ptr<const PackedMatrix> packed_;
  std::shared_ptr<const QuantizedMatrix> quantized_;
  std::shared_ptr<const at::Tensor> plain_;  // where the processor lacks the kernels
};

// activation(gate x) * (up x), the first half of a gated MLP, as one product.
class GatedLinear {
 public:
  GatedLinear() = default;
  // gate, up [F, K]; biases [F] or both undefined.
  GatedLinear(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& gate_bias = {},
              const at::Tensor& up_bias = {});
  GatedLinear(const GroupedWeight& gate, const GroupedWeight& up, at::ScalarType plain_type);

  int64_t bytes() const { return both_.bytes(); }
  RowForm input(Arithmetic arithmetic = Arithmetic::kIntegers) const { return both_.input(arithmetic); }
  // Rows of x in a form of input() -> the first `count` rows of `out`, which has F columns and any form (8-bit groups
  // if F is a multiple of 32).
  void Multiply(const RowView& x, int64_t count, Activation activation, RowBuffer& out) const;
  // Differentiable: x [T, K] in the plain type -> [T, F] in that type.
  at::Tensor Differentiable(const at::Tensor& x, Activation activation) const;

 private:
  int64_t width_ = 0;  // F
  Linear both_;        // 32 rows of gate, 32 of up, and so on, F rounded up: a block of 64 makes 32 outputs
};

// Whether this CPU multiplies bfloat16 natively (AVX512-BF16 or AMX).
bool CpuHasNativeBFloat16();

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_LAYERS_LINEAR_H_
