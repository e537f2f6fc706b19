#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>

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

float SumOfSquares(const float* row, int64_t size) {
  Float8 a{}, b{};  // two chains hide the latency of the additions
  int64_t i = 0;
  for (; i + 2 * kLanes <= size; i += 2 * kLanes) {
    const Float8 x = Load8(row + i), y = Load8(row + i + kLanes);
    a += x * x;
    b += y * y;
  }
  float sum = Sum8(a + b);
  for (; i < size; ++i) sum += row[i] * row[i];
  return sum;
}

template <typename Out>
void NormaliseRow(const float* row, const float* weight, int64_t size, float eps, Out* out) {
  const float scale = 1.0f / std::sqrt(SumOfSquares(row, size) / static_cast<float>(size) + eps);
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) Store8(out + i, Load8(row + i) * scale * Load8(weight + i));
  for (; i < size; ++i) out[i] = static_cast<Out>(row[i] * scale * weight[i]);
}

// gelu_tanh(x) = x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), silu(x) = x * sigmoid(x).
template <Activation activation>
Float8 Activate(Float8 x) {
  const Float8 inner = activation == Activation::kSilu ? x : 1.5957691216057308f * (x + 0.044715f * x * x * x);
  return x / (1.0f + Exp8(-inner));
}

template <Activation activation, typename T>
void GatedRow(const T* gate, const T* up, int64_t width, T* out) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) Store8(out + i, Activate<activation>(Load8(gate + i)) * Load8(up + i));
  for (; i < width; ++i) {
    out[i] =
        static_cast<T>(Activate<activation>(Broadcast8(static_cast<float>(gate[i])))[0] * static_cast<float>(up[i]));
  }
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

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType out_type) {
  const at::Tensor input = x.contiguous();
  const int64_t rows = input.size(0), size = input.size(1);
  at::Tensor out = at::empty({rows, size}, input.options().dtype(out_type));
  const float* in = input.const_data_ptr<float>();
  const float* scales = weight.const_data_ptr<float>();
  DispatchType(out_type, [&](auto tag) {
    using Out = decltype(tag);
    Out* result = out.mutable_data_ptr<Out>();
    at::parallel_for(0, rows, RowGrain(size), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        NormaliseRow(in + r * size, scales, size, static_cast<float>(eps), result + r * size);
      }
    });
  });
  return out;
}

std::pair<at::Tensor, at::Tensor> AddRmsNorm(const at::Tensor& residual, const at::Tensor& delta,
                                             const at::Tensor& weight, double eps, at::ScalarType out_type) {
  const at::Tensor a = residual.contiguous(), b = delta.contiguous();
  const int64_t rows = a.size(0), size = a.size(1);
  at::Tensor sum = at::empty_like(a), out = at::empty({rows, size}, a.options().dtype(out_type));
  const float* x = a.const_data_ptr<float>();
  const float* y = b.const_data_ptr<float>();
  const float* scales = weight.const_data_ptr<float>();
  float* total = sum.mutable_data_ptr<float>();
  DispatchType(out_type, [&](auto tag) {
    using Out = decltype(tag);
    Out* result = out.mutable_data_ptr<Out>();
    at::parallel_for(0, rows, RowGrain(size), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const float* left = x + r * size;
        const float* right = y + r * size;
        float* row = total + r * size;
        int64_t i = 0;
        for (; i + kLanes <= size; i += kLanes) Store8(row + i, Load8(left + i) + Load8(right + i));
        for (; i < size; ++i) row[i] = left[i] + right[i];
        NormaliseRow(row, scales, size, static_cast<float>(eps), result + r * size);
      }
    });
  });
  return {sum, out};
}

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

at::Tensor GatedProduct(const at::Tensor& gate_up, Activation activation) {
  const at::Tensor input = gate_up.contiguous();
  const int64_t rows = input.size(0), width = input.size(1) / 2;
  at::Tensor out = at::empty({rows, width}, input.options());
  DispatchType(input.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = input.const_data_ptr<T>();
    T* result = out.mutable_data_ptr<T>();
    // An exponential costs about as much as four other operations.
    at::parallel_for(0, rows, RowGrain(4 * width), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* gate = in + r * 2 * width;
        if (activation == Activation::kSilu) {
          GatedRow<Activation::kSilu>(gate, gate + width, width, result + r * width);
        } else {
          GatedRow<Activation::kGeluTanh>(gate, gate + width, width, result + r * width);
        }
      }
    });
  });
  return out;
}

}  // namespace trimtab::cpu
