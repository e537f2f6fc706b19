#include "models/kernels/packed_matrix.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#include "models/kernels/cpu/simd.h"

namespace trimtab {
namespace {

constexpr int64_t kBlock = 64;  // weight rows in a block, and rows of x that one kernel call takes
// Multiplications below which a second thread costs more than it saves.
constexpr int64_t kThreadGrain = int64_t{1} << 18;

// One kernel call on a known product.
bool Try(at::ScalarType dtype) {
  try {
    const at::NoGradGuard no_grad;
    const at::Tensor ones = at::ones({3, 32}, dtype);
    const at::Tensor product = PackedMatrix(at::ones({5, 32}, dtype)).Multiply(ones, {}, at::kFloat);
    const float* values = product.const_data_ptr<float>();
    return std::all_of(values, values + product.numel(), [](float value) { return value == 32.0f; });
  } catch (const c10::Error&) {
    return false;  // the kernels say that this processor lacks the instructions
  }
}

// tile [count, kBlock] + bias -> the columns [first, first + width) of out.
template <typename Out>
void StoreTile(const float* tile, int64_t count, int64_t width, const float* bias, Out* out, int64_t stride) {
  for (int64_t row = 0; row < count; ++row) {
    const float* from = tile + row * kBlock;
    Out* to = out + row * stride;
    int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) {
      const Float8 sum = Load8(from + i);
      Store8(to + i, bias == nullptr ? sum : sum + Load8(bias + i));
    }
    for (; i < width; ++i) to[i] = static_cast<Out>(bias == nullptr ? from[i] : from[i] + bias[i]);
  }
}

}  // namespace

bool PackedMatrix::Supports(at::ScalarType dtype) {
  static const bool kFloatWorks = Try(at::kFloat), kBFloat16Works = Try(at::kBFloat16);
  return dtype == at::kFloat ? kFloatWorks : dtype == at::kBFloat16 && kBFloat16Works;
}

PackedMatrix::PackedMatrix(const at::Tensor& weight) : rows_(weight.size(0)), columns_(weight.size(1)) {
  const at::NoGradGuard no_grad;
  const int64_t count = (rows_ + kBlock - 1) / kBlock;
  at::Tensor padded = weight;
  if (rows_ % kBlock != 0) {
    padded = at::zeros({count * kBlock, columns_}, weight.options());
    padded.narrow(0, 0, rows_).copy_(weight);
  }
  if (weight.scalar_type() == at::kFloat) {
    blocks_ = padded.view({count, kBlock, columns_}).transpose(1, 2).contiguous();
  } else {
    TORCH_CHECK(columns_ % 2 == 0, "the inner dimension of a packed bfloat16 matrix must be even");
    blocks_ = padded.view({count, kBlock, columns_ / 2, 2}).transpose(1, 2).contiguous();
  }
}

template <typename T, typename Out>
void PackedMatrix::Run(const at::Tensor& x, const float* bias, at::Tensor& out) const {
  constexpr bool kPairs = std::is_same_v<T, c10::BFloat16>;
  const int64_t count = x.size(0);
  const int64_t column_blocks = (rows_ + kBlock - 1) / kBlock, row_blocks = (count + kBlock - 1) / kBlock;
  const T* input = x.const_data_ptr<T>();
  const T* weights = blocks_.const_data_ptr<T>();
  Out* result = out.mutable_data_ptr<Out>();
  const int64_t work = std::min(count, kBlock) * kBlock * columns_;  // multiplications of one task
  at::parallel_for(0, column_blocks * row_blocks, std::max<int64_t>(1, kThreadGrain / work),
                   [&](int64_t begin, int64_t end) {
                                    alignas(64) std::array<float, kBlock * kBlock> tile;
                     for (int64_t task = begin; task < end; ++task) {
                       // Neighbouring tasks share a block of weights, which then stays in the cache.
                       const int64_t column = task / row_blocks * kBlock, row = task % row_blocks * kBlock;
                       const int64_t height = std::min(kBlock, count - row), width = std::min(kBlock, rows_ - column);
                       const T* block = weights + column * columns_;
                       Out* to = result + row * rows_ + column;
                       if constexpr (std::is_same_v<Out, float>) {
                         if (width == kBlock && bias == nullptr) {
                           at::native::cpublas::brgemm(height, kBlock, columns_, columns_, kBlock, rows_,
                                                       /*add_C=*/false, input + row * columns_, block, to, kPairs);
                           continue;
                         }
                       }
                       at::native::cpublas::brgemm(height, kBlock, columns_, columns_, kBlock, kBlock, /*add_C=*/false,
                                                   input + row * columns_, block, tile.data(), kPairs);
                       StoreTile(tile.data(), height, width, bias == nullptr ? nullptr : bias + column, to, rows_);
                     }
                     at::native::cpublas::brgemm_release(kPairs);
                   });
}

at::Tensor PackedMatrix::Multiply(const at::Tensor& x, const at::Tensor& bias, at::ScalarType out_type) const {
  TORCH_CHECK(x.dim() == 2 && x.size(1) == columns_ && x.scalar_type() == blocks_.scalar_type(),
              "packed product: x must be [rows, ", columns_, "] in the weight's type");
  const at::Tensor input = x.contiguous();
  at::Tensor out = at::empty({x.size(0), rows_}, x.options().dtype(out_type));
  const at::Tensor wide_bias = bias.defined() ? bias.to(at::kFloat).contiguous() : at::Tensor();
  const float* offsets = wide_bias.defined() ? wide_bias.const_data_ptr<float>() : nullptr;
  if (x.scalar_type() == at::kFloat) {
    Run<float, float>(input, offsets, out);
  } else if (out_type == at::kFloat) {
    Run<c10::BFloat16, float>(input, offsets, out);
  } else {
    Run<c10::BFloat16, c10::BFloat16>(input, offsets, out);
  }
  return out;
}

}  // namespace trimtab
