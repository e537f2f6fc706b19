// Products with a matrix that is kept in 4 or 8 bits, in the arithmetic of its plain form: what jobs compute with, so
// that they measure what gradients see. Any thread.
#ifndef TRIMTAB_MODELS_KERNELS_UNPACKED_PRODUCT_H_
#define TRIMTAB_MODELS_KERNELS_UNPACKED_PRODUCT_H_

#include <c10/core/ScalarType.h>

#include <cstdint>

#include "models/kernels/quantized_matrix.h"

namespace trimtab {

// out [count, N] float32 = x W^T + bias (null: none), on this thread's team; x [count, K] dense, in `type`: kFloat or
// kBFloat16, which PackedMatrix must support. The same bits as PackedMatrix(matrix.Unpack(type)) gives, without that
// matrix: it is unpacked 64 rows at a time.
void MultiplyUnpacked(const QuantizedMatrix& matrix, at::ScalarType type, const void* x, int64_t count,
                      const float* bias, float* out);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_KERNELS_UNPACKED_PRODUCT_H_
