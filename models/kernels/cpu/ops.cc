#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "models/kernels/cpu/simd.h"
#include "models/kernels/ops.h"

namespace trimtab::cpu {
namespace {

// Elements below which a second thread costs more than it saves.
constexpr int64_t kElementGrain = 16384;

int64_t RowGrain(int64_t row_elements) {
  return std::max<int64_t>(1, kElementGrain / std::max<int64_t>(1, row_elements));
}

// Runs `body` with a value of the C++ type that `dtype` names.
template <typename Body>
void DispatchType(at::ScalarType dtype, const Body& body) {
  if (dtype == at::kFloat) return body(float{});
  TORCH_CHECK(dtype == at::kBFloat16, "CPU kernels take float32 and bfloat16, not ", dtype);
  body(c10::BFloat16{});
}

template <typename T>
void RotateHead(const T* from, const float* cos, const float* sin, int64_t half, T* to) {
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const Float8 a = Load8(from + i), b = Load8(from + half + i), c = Load8(cos + i), s = Load8(sin + i);
    Store8(to + i, a * c - b * s);
    Store8(to + half + i, b * c + a * s);
  }
  for (; i < half; ++i) {
    const float a = static_cast<float>(from[i]), b = static_cast<float>(from[half + i]);
    to[i] = static_cast<T>(a * cos[i] - b * sin[i]);
    to[half + i] = static_cast<T>(b * cos[i] + a * sin[i]);
  }
}

}  // namespace

at::Tensor Rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t rows = x.size(0), heads = x.size(1), half = x.size(2) / 2;
  const at::Tensor input = x.stride(2) == 1 ? x : x.contiguous();
  const int64_t row_stride = input.stride(0), head_stride = input.stride(1);
  at::Tensor out = at::empty({rows, heads, 2 * half}, input.options());
  const float* c = cos.const_data_ptr<float>();
  const float* s = sin.const_data_ptr<float>();
  DispatchType(input.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = input.const_data_ptr<T>();
    T* result = out.mutable_data_ptr<T>();
    at::parallel_for(0, rows, RowGrain(2 * heads * half), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t h = 0; h < heads; ++h) {
          RotateHead(in + r * row_stride + h * head_stride, c + r * half, s + r * half, half,
                     result + (r * heads + h) * 2 * half);
        }
      }
    });
  });
  return out;
}

}  // namespace trimtab::cpu
