#include "models/kernels/cpu/gate_avx512.h"

// GCC 12 warns of its own "undefined" vectors in the header (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
// The target must be set before the header so that its functions can be inlined here.
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f")
#include <immintrin.h>

namespace trimtab::cpu {
namespace {

constexpr int64_t kWide = 16;

inline __m512 Spread(float value) { return _mm512_set1_ps(value); }

// e^x to about 2 units in the last place: 2^n e^r with |r| <= ln(2)/2, the polynomial of Cephes' expf. 0 and infinity
// beyond the range of floats; a NaN gives a NaN.
inline __m512 Exp(__m512 x) {
  // Where an operand is not a number the second one is taken: it must be x.
  x = _mm512_min_ps(Spread(89.0f), _mm512_max_ps(Spread(-104.0f), x));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, Spread(1.44269504088896341f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, Spread(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, Spread(-2.12194440e-4f), r);
  __m512 p = Spread(1.9875691500e-4f);
  p = _mm512_fmadd_ps(p, r, Spread(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, Spread(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, Spread(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, Spread(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, Spread(5.0000001201e-1f));
  p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), Spread(1.0f));
  return _mm512_scalef_ps(p, n);
}

template <Activation activation>
int64_t GateWith(const float* gate, const float* up, int64_t size, float* to) {
  int64_t i = 0;
  for (; i + kWide <= size; i += kWide) {
    const __m512 x = _mm512_loadu_ps(gate + i);
    __m512 inner = x;  // x * sigmoid(inner), see row_buffer.cc
    if constexpr (activation == Activation::kGeluTanh) {
      const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
      inner = _mm512_mul_ps(Spread(1.5957691216057308f), _mm512_fmadd_ps(Spread(0.044715f), cube, x));
    }
    const __m512 divisor = _mm512_add_ps(Spread(1.0f), Exp(_mm512_sub_ps(_mm512_setzero_ps(), inner)));
    _mm512_storeu_ps(to + i, _mm512_mul_ps(_mm512_div_ps(x, divisor), _mm512_loadu_ps(up + i)));
  }
  return i;
}

}  // namespace

int64_t GateAvx512(const float* gate, const float* up, int64_t size, Activation activation, float* to) {
  return activation == Activation::kSilu ? GateWith<Activation::kSilu>(gate, up, size, to)
                                         : GateWith<Activation::kGeluTanh>(gate, up, size, to);
}

}  // namespace trimtab::cpu

#pragma GCC pop_options

namespace trimtab::cpu {

bool HasWideGate() { return __builtin_cpu_supports("avx512f") != 0; }

}  // namespace trimtab::cpu
