// The product with an output head's weight: a table of a whole vocabulary that is kept in a narrow form and must not
// exist in float32 as a whole. Any thread.
#ifndef TRIMTAB_MODELS_LAYERS_SLICED_PRODUCT_H_
#define TRIMTAB_MODELS_LAYERS_SLICED_PRODUCT_H_

#include <ATen/core/Tensor.h>

#include "models/layers/linear.h"

namespace trimtab {

// x [T, K] float32 -> x W^T [T, N] float32 without the bias, computed in float32 slice by slice. Differentiable with
// respect to x; `weight` must outlive the graph.
at::Tensor SlicedProduct(const at::Tensor& x, const Linear& weight);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_LAYERS_SLICED_PRODUCT_H_
