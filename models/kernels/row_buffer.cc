#include "models/kernels/row_buffer.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "models/kernels/cpu/gate_avx512.h"
#include "models/kernels/cpu/simd.h"

namespace trimtab {
namespace {

constexpr size_t kAlignment = 64;
constexpr int64_t kPiece = 256;  // normalised values that are held at a time: whole groups

// gelu_tanh(x) = x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), silu(x) = x * sigmoid(x).
template <Activation activation>
Float8 Activate(Float8 x) {
  const Float8 inner = activation == Activation::kSilu ? x : 1.5957691216057308f * (x + 0.044715f * x * x * x);
  return x / (1.0f + Exp8(-inner));
}

template <Activation activation>
void GateWith(const float* gate, const float* up, int64_t size, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) Store8(to + i, Activate<activation>(Load8(gate + i)) * Load8(up + i));
  for (; i < size; ++i) to[i] = Activate<activation>(Broadcast8(gate[i]))[0] * up[i];
}

template <typename T>
void Convert(const float* from, int64_t count, T* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store8(to + i, Load8(from + i));
  for (; i < count; ++i) to[i] = static_cast<T>(from[i]);
}

float InverseNorm(const float* x, int64_t size, float eps) {
  return 1.0f / std::sqrt(SumOfSquares(x, size) / static_cast<float>(size) + eps);
}

// to[i] = x[i] * scale * weight[i]; `to` may be `x`.
void ScaleRow(const float* x, float scale, const float* weight, int64_t size, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) Store8(to + i, Load8(x + i) * scale * Load8(weight + i));
  for (; i < size; ++i) to[i] = x[i] * scale * weight[i];
}

}  // namespace

void RowBuffer::Reset(RowForm form, int64_t rows, int64_t columns) {
  form_ = form;
  columns_ = columns;
  const int64_t element = form == RowForm::kFloat32 ? 4 : form == RowForm::kBFloat16 ? 2 : 1;
  const int64_t groups = form == RowForm::kGroups8 ? rows * (columns / kWeightGroup) : 0;
  const size_t values = (static_cast<size_t>(rows * columns * element) + kAlignment - 1) / kAlignment * kAlignment;
  const size_t size = values + static_cast<size_t>(groups) * 2 * sizeof(float);
  if (size > capacity_) {
    capacity_ = size + size / 4;
    data_ = std::shared_ptr<uint8_t[]>(new (std::align_val_t{kAlignment}) uint8_t[capacity_],
                                       [](uint8_t* data) { ::operator delete[](data, std::align_val_t{kAlignment}); });
  }
  scales_ = reinterpret_cast<float*>(data_.get() + values);
  sums_ = scales_ + groups;
}

void RowBuffer::Set(int64_t row, int64_t first, int64_t count, const float* values) {
  const int64_t at = row * columns_ + first;
  switch (form_) {
    case RowForm::kFloat32:
      std::copy(values, values + count, reinterpret_cast<float*>(data_.get()) + at);
      return;
    case RowForm::kBFloat16:
      Convert(values, count, reinterpret_cast<c10::BFloat16*>(data_.get()) + at);
      return;
    case RowForm::kGroups8: {
      const int64_t group = at / kWeightGroup;
      QuantizeGroups(values, count / kWeightGroup, reinterpret_cast<int8_t*>(data_.get()) + at, scales_ + group,
                     sums_ + group);
    }
  }
}

void NormalizeRow(const float* x, const float* weight, int64_t size, float eps, RowBuffer& out, int64_t row) {
  const float scale = InverseNorm(x, size, eps);
  alignas(kAlignment) float piece[kPiece];
  for (int64_t first = 0; first < size; first += kPiece) {
    const int64_t count = std::min(kPiece, size - first);
    ScaleRow(x + first, scale, weight + first, count, piece);
    out.Set(row, first, count, piece);
  }
}

void NormalizeInPlace(float* x, const float* weight, int64_t size, float eps) {
  ScaleRow(x, InverseNorm(x, size, eps), weight, size, x);
}

void AddRow(const float* a, const float* b, int64_t size, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) Store8(to + i, Load8(a + i) + Load8(b + i));
  for (; i < size; ++i) to[i] = a[i] + b[i];
}

void GateRow(const float* gate, const float* up, int64_t size, Activation activation, float* to) {
  static const bool kWide = cpu::HasWideGate();
  if (kWide) {
    const int64_t done = cpu::GateAvx512(gate, up, size, activation, to);
    if (done == size) return;
    gate += done, up += done, to += done, size -= done;
  }
  if (activation == Activation::kSilu) {
    GateWith<Activation::kSilu>(gate, up, size, to);
  } else {
    GateWith<Activation::kGeluTanh>(gate, up, size, to);
  }
}

}  // namespace trimtab
