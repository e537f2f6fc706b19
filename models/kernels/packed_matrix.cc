#include "models/kernels/packed_matrix.h"

#include <ATen/core/grad_mode.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "models/kernels/cpu/packed_avx512.h"
#include "models/kernels/large_memory.h"
#include "models/kernels/thread_team.h"

namespace trimtab {
namespace {

constexpr int64_t kTaskRows = 64;  // rows of x that one kernel call takes
// Rows of bfloat16 up to which our own kernel is faster than oneDNN's, which waits for memory.
constexpr int64_t kFewRows = 32;
// Multiplications below which a second thread costs more than it saves.
constexpr int64_t kSerialWork = int64_t{1} << 15;

// One kernel call on a known product.
bool Try(at::ScalarType dtype) {
  try {
    const at::NoGradGuard no_grad;
    const at::Tensor ones = at::ones({3, 32}, dtype);
    std::array<float, 15> product;
    PackedMatrix(at::ones({5, 32}, dtype)).Multiply(ones.const_data_ptr(), 3, nullptr, product.data());
    return std::all_of(product.begin(), product.end(), [](float value) { return value == 32.0f; });
  } catch (const c10::Error&) {
    return false;  // the kernels say that this processor lacks the instructions
  }
}

}  // namespace

bool PackedMatrix::Supports(at::ScalarType dtype) {
  static const bool kFloatWorks = Try(at::kFloat), kBFloat16Works = Try(at::kBFloat16);
  return dtype == at::kFloat ? kFloatWorks : dtype == at::kBFloat16 && kBFloat16Works;
}

PackedMatrix::PackedMatrix(const at::Tensor& weight) : rows_(weight.size(0)), columns_(weight.size(1)) {
  const at::NoGradGuard no_grad;
  at::Tensor padded = weight;
  if (rows_ % kBlock != 0) {
    padded = at::zeros({blocks() * kBlock, columns_}, weight.options());
    padded.narrow(0, 0, rows_).copy_(weight);
  }
  at::Tensor laid_out;
  if (weight.scalar_type() == at::kFloat) {
    laid_out = padded.view({blocks(), kBlock, columns_}).transpose(1, 2);
  } else {
    TORCH_CHECK(columns_ % 2 == 0, "the inner dimension of a packed bfloat16 matrix must be even");
    laid_out = padded.view({blocks(), kBlock, columns_ / 2, 2}).transpose(1, 2);
  }
  const std::shared_ptr<uint8_t[]> memory = AllocateLarge(laid_out.nbytes());
  blocks_ = at::from_blob(
      memory.get(), laid_out.sizes(), [memory](void*) {}, laid_out.options());
  blocks_.copy_(laid_out);
}

void PackedMatrix::MultiplyBlock(int64_t block, const void* x, int64_t count, float* out, int64_t stride) const {
  const int64_t block_bytes = kBlock * columns_ * static_cast<int64_t>(blocks_.element_size());
  const char* from = static_cast<const char*>(blocks_.const_data_ptr()) + block * block_bytes;
  MultiplyBlock(dtype(), from, columns_, x, count, out, stride);
}

void PackedMatrix::MultiplyBlock(at::ScalarType dtype, const void* block, int64_t columns, const void* x, int64_t count,
                                 float* out, int64_t stride) {
  if (dtype == at::kFloat) {
    at::native::cpublas::brgemm(count, kBlock, columns, columns, kBlock, stride, /*add_C=*/false,
                                static_cast<const float*>(x), static_cast<const float*>(block), out,
                                /*is_vnni=*/false);
  } else if (static const bool kOurs = cpu::HasBFloat16(); kOurs && count <= kFewRows) {
    cpu::MultiplyBlockBFloat16({.block = static_cast<const uint16_t*>(block),
                                .pairs = columns / 2,
                                .x = static_cast<const uint16_t*>(x),
                                .count = count,
                                .out = out,
                                .stride = stride});
  } else {
    at::native::cpublas::brgemm(count, kBlock, columns, columns, kBlock, stride, /*add_C=*/false,
                                static_cast<const c10::BFloat16*>(x), static_cast<const c10::BFloat16*>(block), out,
                                /*is_vnni=*/true);
  }
}

void PackedMatrix::Release(at::ScalarType dtype) { at::native::cpublas::brgemm_release(dtype == at::kBFloat16); }

void PackedMatrix::Multiply(const void* x, int64_t count, const float* bias, float* out) const {
  const int64_t row_blocks = (count + kTaskRows - 1) / kTaskRows;
  const int64_t row_bytes = columns_ * static_cast<int64_t>(blocks_.element_size());
  const auto run = [&](int64_t task) {
    // Neighbouring tasks share a block of weights, which then stays in the cache.
    const int64_t block = task / row_blocks, first = task % row_blocks * kTaskRows;
    const int64_t height = std::min(kTaskRows, count - first), width = std::min(kBlock, rows_ - block * kBlock);
    const char* from = static_cast<const char*>(x) + first * row_bytes;
    float* to = out + first * rows_ + block * kBlock;
    if (width == kBlock) {
      MultiplyBlock(block, from, height, to, rows_);
    } else {
      alignas(64) std::array<float, kTaskRows * kBlock> tile;
      MultiplyBlock(block, from, height, tile.data(), kBlock);
      for (int64_t r = 0; r < height; ++r) {
        std::memcpy(to + r * rows_, tile.data() + r * kBlock, static_cast<size_t>(width) * sizeof(float));
      }
    }
    Release();
    if (bias == nullptr) return;
    for (int64_t r = 0; r < height; ++r) {
      for (int64_t c = 0; c < width; ++c) to[r * rows_ + c] += bias[block * kBlock + c];
    }
  };
  const int64_t tasks = blocks() * row_blocks;
  if (count * rows_ * columns_ < kSerialWork) {
    for (int64_t task = 0; task < tasks; ++task) run(task);
  } else {
    ParallelTasks(tasks, run);
  }
}

at::Tensor PackedMatrix::Unpack() const {
  const at::NoGradGuard no_grad;
  return blocks_.transpose(1, 2).reshape({blocks() * kBlock, columns_}).narrow(0, 0, rows_);
}

at::Tensor PackedMatrix::Rows(const at::Tensor& numbers) const {
  const at::NoGradGuard no_grad;
  const at::Tensor order = numbers.contiguous(), out = at::empty({order.numel(), columns_}, blocks_.options());
  const int64_t* rows = order.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < order.numel(); ++i) {
    TORCH_CHECK(rows[i] >= 0 && rows[i] < rows_, "row ", rows[i], " of a matrix with ", rows_);
    const int64_t begin = rows[i] / kBlock * kBlock * columns_, place = rows[i] % kBlock;
    if (dtype() == at::kFloat) {
      const float* from = blocks_.const_data_ptr<float>() + begin + place;
      float* to = out.mutable_data_ptr<float>() + i * columns_;
      for (int64_t k = 0; k < columns_; ++k) to[k] = from[k * kBlock];
    } else {
      const c10::BFloat16* from = blocks_.const_data_ptr<c10::BFloat16>() + begin + 2 * place;
      c10::BFloat16* to = out.mutable_data_ptr<c10::BFloat16>() + i * columns_;
      for (int64_t k = 0; k < columns_; ++k) to[k] = from[k / 2 * 2 * kBlock + k % 2];
    }
  }
  return out;
}

}  // namespace trimtab
