#include "models/layers/sliced_product.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstring>

#include "models/kernels/thread_team.h"

namespace trimtab {
namespace {

constexpr int64_t kSlice = 4096;  // rows of the weight: 10 MB of 640 columns
constexpr int64_t kTask = 64;     // of them, that one task widens

// Rows [first, first + count) of the weight [count, K] float32.
at::Tensor Slice(const Linear& weight, int64_t first, int64_t count) {
  at::Tensor slice = at::empty({count, weight.columns()}, at::kFloat);
  float* to = slice.mutable_data_ptr<float>();
  ParallelTasks((count + kTask - 1) / kTask, [&](int64_t task) {
    const at::NoGradGuard no_grad;
    const int64_t begin = task * kTask, end = std::min(count, begin + kTask);
    const at::Tensor rows = weight.Rows(at::arange(first + begin, first + end, at::kLong)).contiguous();
    std::memcpy(to + begin * weight.columns(), rows.const_data_ptr<float>(), rows.nbytes());
  });
  return slice;
}

// body(first, slice) for all slices in order.
template <typename Body>
void ForSlices(const Linear& weight, const Body& body) {
  for (int64_t first = 0; first < weight.rows(); first += kSlice) {
    body(first, Slice(weight, first, std::min(kSlice, weight.rows() - first)));
  }
}

struct Product : torch::autograd::Function<Product> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const Linear* weight) {
    context->saved_data["weight"] = reinterpret_cast<int64_t>(weight);
    at::Tensor product = at::empty({x.size(0), weight->rows()}, at::kFloat);
    ForSlices(*weight, [&](int64_t first, const at::Tensor& slice) {
      product.narrow(1, first, slice.size(0)).copy_(at::mm(x, slice.t()));
    });
    return product;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto* weight = reinterpret_cast<const Linear*>(context->saved_data["weight"].toInt());
    at::Tensor gradient = at::zeros({gradients[0].size(0), weight->columns()}, at::kFloat);
    ForSlices(*weight, [&](int64_t first, const at::Tensor& slice) {
      gradient.addmm_(gradients[0].narrow(1, first, slice.size(0)), slice);
    });
    return {gradient, at::Tensor()};
  }
};

}  // namespace

at::Tensor SlicedProduct(const at::Tensor& x, const Linear& weight) { return Product::apply(x, &weight); }

}  // namespace trimtab
