// Memory that forward passes of one thread share, so that a step allocates nothing once it has seen the largest one.
#ifndef TRIMTAB_MODELS_LAYERS_WORKSPACE_H_
#define TRIMTAB_MODELS_LAYERS_WORKSPACE_H_

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>

#include "models/kernels/row_buffer.h"

namespace trimtab {

// A matrix that grows when it must and keeps its memory; asked for the shape of the time before, it allocates nothing.
class GrowingTensor {
 public:
  // [rows, columns], contents undefined, valid until the next call.
  at::Tensor Get(int64_t rows, int64_t columns, at::ScalarType dtype) {
    if (last_.defined() && last_.scalar_type() == dtype && last_.size(0) == rows && last_.size(1) == columns) {
      return last_;
    }
    const int64_t needed = rows * columns;
    if (!memory_.defined() || memory_.scalar_type() != dtype || memory_.numel() < needed) {
      memory_ = at::empty({std::max<int64_t>(needed, 1)}, at::TensorOptions().dtype(dtype));
    }
    return last_ = memory_.narrow(0, 0, needed).view({rows, columns});
  }

 private:
  at::Tensor memory_, last_;
};

// One forward pass at a time. What a pass returns may lie in it, and holds until the next pass.
struct Workspace {
  RowBuffer input, gated;  // of the products
  GrowingTensor hidden, qkv, attended, delta, logits;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_LAYERS_WORKSPACE_H_
