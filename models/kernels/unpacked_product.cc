#include "models/kernels/unpacked_product.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "models/kernels/packed_matrix.h"
#include "models/kernels/thread_team.h"

namespace trimtab {
namespace {

constexpr int64_t kBlock = PackedMatrix::kBlock;
constexpr int64_t kTaskRows = 64;  // rows of x that one kernel call takes

}  // namespace

void MultiplyUnpacked(const QuantizedMatrix& matrix, at::ScalarType type, const void* x, int64_t count,
                      const float* bias, float* out) {
  const int64_t rows = matrix.rows(), columns = matrix.columns();
  const int64_t row_bytes = columns * static_cast<int64_t>(c10::elementSize(type));
  ParallelTasks((rows + kBlock - 1) / kBlock, [&](int64_t block) {
    const at::Tensor plain = at::empty({columns * kBlock}, at::TensorOptions().dtype(type));
    matrix.UnpackBlock(block, type, plain.mutable_data_ptr());
    const int64_t width = std::min(kBlock, rows - block * kBlock);
    alignas(64) std::array<float, kTaskRows * kBlock> tile;
    for (int64_t first = 0; first < count; first += kTaskRows) {
      const int64_t height = std::min(kTaskRows, count - first);
      const char* from = static_cast<const char*>(x) + first * row_bytes;
      PackedMatrix::MultiplyBlock(type, plain.const_data_ptr(), columns, from, height, tile.data(), kBlock);
      for (int64_t r = 0; r < height; ++r) {
        float* to = out + (first + r) * rows + block * kBlock;
        std::memcpy(to, tile.data() + r * kBlock, static_cast<size_t>(width) * sizeof(float));
        if (bias == nullptr) continue;
        for (int64_t c = 0; c < width; ++c) to[c] += bias[block * kBlock + c];
      }
    }
    PackedMatrix::Release(type);
  });
}

}  // namespace trimtab
