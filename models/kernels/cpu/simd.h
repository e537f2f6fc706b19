// Eight floats at a time, in the compiler's portable vector type: what the CPU kernels share. Every operation works
// lane by lane in a fixed order, so that a row's result never depends on the rows around it.
#ifndef TRIMTAB_MODELS_KERNELS_CPU_SIMD_H_
#define TRIMTAB_MODELS_KERNELS_CPU_SIMD_H_

#include <c10/util/BFloat16.h>

#include <cstdint>
#include <cstring>

namespace trimtab {

using Float8 = float __attribute__((vector_size(32)));
using Int8x32 = int32_t __attribute__((vector_size(32)));
using UInt8x32 = uint32_t __attribute__((vector_size(32)));
using UInt8x16 = uint16_t __attribute__((vector_size(16)));
constexpr int64_t kLanes = 8;

inline Float8 Load8(const float* from) {
  Float8 value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

inline Float8 Load8(const c10::BFloat16* from) {
  UInt8x16 halves;
  std::memcpy(&halves, from, sizeof halves);
  return reinterpret_cast<Float8>(__builtin_convertvector(halves, UInt8x32) << 16);
}

inline void Store8(float* to, Float8 value) { std::memcpy(to, &value, sizeof value); }

// Rounds to nearest even; a NaN stays one.
inline void Store8(c10::BFloat16* to, Float8 value) {
  const UInt8x32 bits = reinterpret_cast<UInt8x32>(value);
  const UInt8x32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const UInt8x32 is_nan = reinterpret_cast<UInt8x32>(value != value);
  const UInt8x16 halves = __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fc0u), UInt8x16);
  std::memcpy(to, &halves, sizeof halves);
}

inline Float8 Broadcast8(float value) { return Float8{} + value; }

inline Float8 Max8(Float8 a, Float8 b) { return a > b ? a : b; }

// The sum of the lanes, always in the same order.
inline float Sum8(Float8 value) {
  return ((value[0] + value[4]) + (value[2] + value[6])) + ((value[1] + value[5]) + (value[3] + value[7]));
}

// Two chains hide the latency of the additions; the order is always the same.
inline float SumOfSquares(const float* x, int64_t size) {
  Float8 a{}, b{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= size; i += 2 * kLanes) {
    const Float8 first = Load8(x + i), second = Load8(x + i + kLanes);
    a += first * first;
    b += second * second;
  }
  float sum = Sum8(a + b);
  for (; i < size; ++i) sum += x[i] * x[i];
  return sum;
}

// e^x to about 2 units in the last place: 2^n e^r with |r| <= ln(2)/2, the polynomial of Cephes' expf. Below -87 the
// result is 0 (also for -infinity), above 88 infinity-like large; a NaN gives a NaN.
inline Float8 Exp8(Float8 x) {
  const Float8 low = Broadcast8(-87.0f), high = Broadcast8(88.0f);
  const Int8x32 underflow = x < low;
  const Float8 clamped = x > high ? high : (underflow ? low : x);
  // Adding and taking away 1.5 * 2^23 rounds to an integer.
  const Float8 magic = Broadcast8(12582912.0f);
  const Float8 shifted = clamped * 1.44269504088896341f + magic;
  const Float8 n = shifted - magic;
  const Float8 r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  Float8 p = Broadcast8(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Int8x32 exponent = (reinterpret_cast<Int8x32>(shifted) << 23) + (127 << 23);  // 2^n
  const Float8 result = p * reinterpret_cast<Float8>(exponent);
  return underflow ? Float8{} : result;
}

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_KERNELS_CPU_SIMD_H_
