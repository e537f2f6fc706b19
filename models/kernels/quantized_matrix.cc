#include "models/kernels/quantized_matrix.h"

#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "models/kernels/cpu/quantized_avx512.h"
#include "models/kernels/large_memory.h"
#include "models/kernels/thread_team.h"

namespace trimtab {
namespace {

constexpr int64_t kHalf = 16;      // weight rows of half a strip
constexpr int64_t kTaskRows = 64;  // rows of x that one task takes
constexpr int64_t kAlignment = 64;
// Multiplications below which a second thread costs more than it saves.
constexpr int64_t kSerialWork = int64_t{1} << 15;

uint16_t HalfBits(float value) {
  const c10::Half half(value);
  return half.x;
}

float HalfAt(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return static_cast<float>(c10::Half(bits, c10::Half::from_bits()));
}

// Place of the quant of weight row `row` (0..15) and column `column` (0..31) in half a group.
struct Place {
  int64_t byte;
  int shift;
};
Place PlaceOf(int bits, int64_t row, int64_t column) {
  const int64_t step = column / 4;
  if (bits == 8) return {step * 64 + row * 4 + column % 4, 0};
  return {step / 2 * 64 + row * 4 + column % 4, step % 2 == 0 ? 0 : 4};
}

// Always with one rounding, as the fast kernels have it.
float WeightOf(float scale, int quant, float minimum) { return std::fma(scale, static_cast<float>(quant), minimum); }

// Half a strip of a block: 16 weight rows from `data`, whose groups are `stride` bytes apart, to rows [row, row + 16).
struct HalfBlock {
  const uint8_t* data;
  int64_t stride;
  int bits;
  int64_t groups;
  int64_t row;
};

template <typename T>
void UnpackHalf(const HalfBlock& half, T* out) {
  constexpr int64_t kBlock = 64, kTogether = sizeof(T) == 2 ? 2 : 1;  // columns of a row that lie beside each other
  const int64_t tail = half.bits == 4 ? 256 : 512;
  for (int64_t group = 0; group < half.groups; ++group) {
    const uint8_t* from = half.data + group * half.stride;
    for (int64_t c = 0; c < kHalf; ++c) {
      const float scale = HalfAt(from + tail + 2 * c), minimum = HalfAt(from + tail + 2 * kHalf + 2 * c);
      for (int64_t k = 0; k < kWeightGroup; ++k) {
        const Place place = PlaceOf(half.bits, c, k);
        const int quant = half.bits == 8 ? from[place.byte] : from[place.byte] >> place.shift & 15;
        const int64_t column = group * kWeightGroup + k;
        out[(column / kTogether * kBlock + half.row + c) * kTogether + column % kTogether] =
            static_cast<T>(WeightOf(scale, quant, minimum));
      }
    }
  }
}

}  // namespace

void QuantizeGroups(const float* x, int64_t groups, int8_t* values, float* scales, float* sums) {
  static const bool kFast = QuantizedMatrix::Supported();
  if (kFast) return cpu::QuantizeGroupsAvx512(x, groups, values, scales, sums);
  for (int64_t g = 0; g < groups; ++g, x += kWeightGroup, values += kWeightGroup) {
    float largest = 0;
    for (int64_t i = 0; i < kWeightGroup; ++i) largest = std::max(largest, std::abs(x[i]));
    const float scale = largest / 127.0f, inverse = scale > 0 ? 1.0f / scale : 0.0f;
    int32_t sum = 0;
    for (int64_t i = 0; i < kWeightGroup; ++i) {
      const int32_t value = static_cast<int32_t>(std::nearbyint(x[i] * inverse));
      values[i] = static_cast<int8_t>(std::clamp(value, -128, 127));
      sum += value;
    }
    scales[g] = scale;
    sums[g] = scale * static_cast<float>(sum);
  }
}

bool QuantizedMatrix::Supported() { return cpu::HasVnni(); }

QuantizedMatrix::QuantizedMatrix(const GroupedWeight& weight)
    : bits_(weight.bits), rows_(weight.rows), columns_(weight.columns) {
  TORCH_CHECK(columns_ % kWeightGroup == 0 && (bits_ == 4 || bits_ == 8), "a quantised matrix needs whole groups");
  data_ = AllocateLarge(static_cast<size_t>(bytes()));
  const int64_t groups = columns_ / kWeightGroup, tail = half_bytes() - 4 * kHalf;
  for (int64_t row = 0; row < rows_; ++row) {
    const int64_t c = row % kHalf;
    for (int64_t group = 0; group < groups; ++group) {
      uint8_t* to = const_cast<uint8_t*>(half(row / kStrip, group, row % kStrip / kHalf));
      const auto index = static_cast<size_t>(row * groups + group);
      for (int64_t i = 0; i < kWeightGroup; ++i) {
        const Place place = PlaceOf(bits_, c, i);
        to[place.byte] |=
            static_cast<uint8_t>(weight.quants[index * kWeightGroup + static_cast<size_t>(i)] << place.shift);
      }
      const uint16_t scale = HalfBits(weight.scales[index]), minimum = HalfBits(weight.minimums[index]);
      std::memcpy(to + tail + 2 * c, &scale, sizeof(scale));
      std::memcpy(to + tail + 2 * kHalf + 2 * c, &minimum, sizeof(minimum));
    }
  }
}

void QuantizedMatrix::MultiplyStrip(int64_t strip, const QuantizedRows& x, int64_t first, int64_t count, float* out,
                                    int64_t stride) const {
  static const bool kFast = Supported();
  if (!kFast) return MultiplyStripReference(*this, strip, x, first, count, out, stride);
  const int64_t groups = columns_ / kWeightGroup;
  cpu::MultiplyStripVnni({.strip = half(strip, 0, 0),
                          .bits = bits_,
                          .groups = groups,
                          .values = x.values + first * columns_,
                          .scales = x.scales + first * groups,
                          .sums = x.sums + first * groups,
                          .count = count,
                          .out = out,
                          .stride = stride});
}

void QuantizedMatrix::Multiply(const QuantizedRows& x, int64_t count, const float* bias, float* out) const {
  TORCH_CHECK(x.columns == columns_, "quantised product: rows must have ", columns_, " columns, have ", x.columns);
  const int64_t row_blocks = (count + kTaskRows - 1) / kTaskRows;
  const auto run = [&](int64_t task) {
    // Neighbouring tasks share a strip, which then stays in the cache.
    const int64_t strip = task / row_blocks, first = task % row_blocks * kTaskRows;
    const int64_t height = std::min(kTaskRows, count - first), width = std::min(kStrip, rows_ - strip * kStrip);
    float* to = out + first * rows_ + strip * kStrip;
    if (width == kStrip) {
      MultiplyStrip(strip, x, first, height, to, rows_);
    } else {
      alignas(kAlignment) std::array<float, kTaskRows * kStrip> tile;
      MultiplyStrip(strip, x, first, height, tile.data(), kStrip);
      for (int64_t r = 0; r < height; ++r) {
        std::memcpy(to + r * rows_, tile.data() + r * kStrip, static_cast<size_t>(width) * sizeof(float));
      }
    }
    if (bias == nullptr) return;
    for (int64_t r = 0; r < height; ++r) {
      for (int64_t c = 0; c < width; ++c) to[r * rows_ + c] += bias[strip * kStrip + c];
    }
  };
  const int64_t tasks = strips() * row_blocks;
  if (count * rows_ * columns_ < kSerialWork) {
    for (int64_t task = 0; task < tasks; ++task) run(task);
  } else {
    ParallelTasks(tasks, run);
  }
}

at::Tensor QuantizedMatrix::Rows(const int64_t* numbers, int64_t count) const {
  at::Tensor out = at::empty({count, columns_}, at::TensorOptions().dtype(at::kFloat));
  float* to = out.mutable_data_ptr<float>();
  const int64_t groups = columns_ / kWeightGroup, tail = half_bytes() - 4 * kHalf;
  for (int64_t i = 0; i < count; ++i) {
    TORCH_CHECK(numbers[i] >= 0 && numbers[i] < rows_, "row ", numbers[i], " of a matrix with ", rows_);
    const int64_t c = numbers[i] % kHalf;
    for (int64_t group = 0; group < groups; ++group) {
      const uint8_t* from = half(numbers[i] / kStrip, group, numbers[i] % kStrip / kHalf);
      const float scale = HalfAt(from + tail + 2 * c), minimum = HalfAt(from + tail + 2 * kHalf + 2 * c);
      for (int64_t k = 0; k < kWeightGroup; ++k, ++to) {
        const Place place = PlaceOf(bits_, c, k);
        const int quant = bits_ == 8 ? from[place.byte] : from[place.byte] >> place.shift & 15;
        *to = WeightOf(scale, quant, minimum);
      }
    }
  }
  return out;
}

template <typename T>
void QuantizedMatrix::UnpackStrip(int64_t strip, T* out) const {
  const int64_t tail = half_bytes() - 4 * kHalf;
  for (int64_t first = strip * kStrip; first < std::min(rows_, (strip + 1) * kStrip); first += kHalf) {
    const int64_t count = std::min(kHalf, rows_ - first);
    for (int64_t group = 0; group < columns_ / kWeightGroup; ++group) {
      const uint8_t* from = half(strip, group, first % kStrip / kHalf);
      for (int64_t c = 0; c < count; ++c) {
        const float scale = HalfAt(from + tail + 2 * c), minimum = HalfAt(from + tail + 2 * kHalf + 2 * c);
        T* to = out + (first + c) * columns_ + group * kWeightGroup;
        const auto put = [&](int64_t k, int quant) { to[k] = static_cast<T>(WeightOf(scale, quant, minimum)); };
        for (int64_t line = 0; line < tail / 64; ++line) {
          const uint8_t* quants = from + line * 64 + c * 4;
          for (int64_t b = 0; b < 4; ++b) {
            if (bits_ == 8) {
              put(4 * line + b, quants[b]);
            } else {
              put(8 * line + b, quants[b] & 15);
              put(8 * line + 4 + b, quants[b] >> 4);
            }
          }
        }
      }
    }
  }
}

at::Tensor QuantizedMatrix::Unpack(at::ScalarType type) const {
  at::Tensor out = at::empty({rows_, columns_}, at::TensorOptions().dtype(type));
  const auto unpack = [&](auto* to) { ParallelTasks(strips(), [&](int64_t strip) { UnpackStrip(strip, to); }); };
  if (type == at::kBFloat16) {
    unpack(out.mutable_data_ptr<c10::BFloat16>());
  } else {
    unpack(out.mutable_data_ptr<float>());
  }
  return out;
}

void QuantizedMatrix::UnpackBlock(int64_t block, at::ScalarType type, void* out) const {
  static const bool kFast = Supported();
  constexpr int64_t kStrips = 2;  // of a block
  if ((block + 1) * kStrips > strips()) {
    std::memset(out, 0, static_cast<size_t>(kStrips * kStrip * columns_) * c10::elementSize(type));
  }
  for (int64_t i = 0; i < 2 * kStrips; ++i) {
    const int64_t strip = block * kStrips + i / 2;
    if (strip >= strips()) return;
    const uint8_t* data = half(strip, 0, i % 2);
    const int64_t stride = 2 * half_bytes(), groups = columns_ / kWeightGroup;
    if (kFast && type == at::kBFloat16) {
      cpu::UnpackHalfAvx512(data, bits_, groups, static_cast<uint16_t*>(out) + 2 * i * kHalf);
    } else if (type == at::kBFloat16) {
      UnpackHalf(HalfBlock{data, stride, bits_, groups, i * kHalf}, static_cast<c10::BFloat16*>(out));
    } else {
      UnpackHalf(HalfBlock{data, stride, bits_, groups, i * kHalf}, static_cast<float*>(out));
    }
  }
}

void MultiplyStripReference(const QuantizedMatrix& matrix, int64_t strip, const QuantizedRows& x, int64_t first,
                            int64_t count, float* out, int64_t stride) {
  const int64_t groups = matrix.columns_ / kWeightGroup, tail = matrix.half_bytes() - 4 * kHalf;
  for (int64_t row = first; row < first + count; ++row) {
    for (int64_t column = 0; column < QuantizedMatrix::kStrip; ++column) {
      const int64_t c = column % kHalf;
      float total = 0;
      for (int64_t group = 0; group < groups; ++group) {
        const uint8_t* from = matrix.half(strip, group, column / kHalf);
        int32_t sum = 0;
        for (int64_t k = 0; k < kWeightGroup; ++k) {
          const Place place = PlaceOf(matrix.bits_, c, k);
          const int quant = matrix.bits_ == 8 ? from[place.byte] : from[place.byte] >> place.shift & 15;
          sum += quant * x.values[row * matrix.columns_ + group * kWeightGroup + k];
        }
        const float factor = HalfAt(from + tail + 2 * c) * x.scales[row * groups + group];
        total = std::fma(static_cast<float>(sum), factor, total);
        total = std::fma(HalfAt(from + tail + 2 * kHalf + 2 * c), x.sums[row * groups + group], total);
      }
      out[(row - first) * stride + column] = total;
    }
  }
}

}  // namespace trimtab
