// The tile kernel in 64-byte vectors, with products of bfloat16 pairs (vdpbf16ps). Runs only where
// BestInstructionSet() allows it.

// g++ 12 takes the "any value" operand of its own intrinsics for a mistake.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <limits>

#include "models/attention/tile_kernel.h"

// Only what follows may use these instructions: shared inline functions of the headers above must run everywhere.
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

#include "models/attention/tile_kernel_impl.h"

namespace trimtab {
namespace {

struct Avx512 {
  using Vec = __m512;
  static constexpr int64_t kLanes = 16;
  static constexpr int kQueries = 6, kColumns = 4;

  static TRIMTAB_INLINE Vec Zero() { return _mm512_setzero_ps(); }
  static TRIMTAB_INLINE Vec Load(const float* from) { return _mm512_loadu_ps(from); }
  static TRIMTAB_INLINE void Store(float* to, Vec value) { _mm512_storeu_ps(to, value); }
  static TRIMTAB_INLINE void StoreNarrow(uint16_t* to, Vec value) {
    const __m256bh narrow = _mm512_cvtneps_pbh(value);
    std::memcpy(to, &narrow, sizeof narrow);
  }
  static TRIMTAB_INLINE Vec Spread(float value) { return _mm512_set1_ps(value); }
  static TRIMTAB_INLINE Vec Add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static TRIMTAB_INLINE Vec Subtract(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
  static TRIMTAB_INLINE Vec Multiply(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static TRIMTAB_INLINE Vec MultiplyAdd(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static TRIMTAB_INLINE Vec Max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
  static TRIMTAB_INLINE float Largest(Vec value) { return _mm512_reduce_max_ps(value); }
  // -infinity in the lanes from `count` on.
  static TRIMTAB_INLINE Vec Mask(Vec value, int64_t count) {
    return _mm512_mask_mov_ps(Spread(-std::numeric_limits<float>::infinity()),
                              static_cast<__mmask16>((1u << count) - 1), value);
  }
  // -infinity in the first `count` lanes.
  static TRIMTAB_INLINE Vec MaskFirst(Vec value, int64_t count) {
    return _mm512_mask_mov_ps(value, static_cast<__mmask16>((1u << count) - 1),
                              Spread(-std::numeric_limits<float>::infinity()));
  }
  // 2^x for x <= 0.
  static TRIMTAB_INLINE Vec Exp2(Vec x) {
    const Vec clamped = _mm512_max_ps(Spread(-150.0f), x);  // underflows to 0
    const Vec n = _mm512_roundscale_ps(clamped, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm512_scalef_ps(PowerOfTwo<Avx512>(Subtract(clamped, n)), n);
  }

  template <typename C>
  struct Products;
};

template <>
struct Avx512::Products<float> {
  using Operand = float;
  using Left = Vec;
  using Right = Vec;
  static constexpr int64_t kPack = 1;
  static constexpr bool kNarrow = false;
  static TRIMTAB_INLINE Left Spread(const float* value) { return Avx512::Spread(*value); }
  static TRIMTAB_INLINE Right Load(const float* from) { return Avx512::Load(from); }
  static TRIMTAB_INLINE Right FirstOnly(Right right) { return right; }
  static TRIMTAB_INLINE Right LastOnly(Right right) { return right; }
  static TRIMTAB_INLINE Vec Multiply(Left left, Right right, Vec sum) { return MultiplyAdd(left, right, sum); }
};

// Bits of bfloat16 in pairs.
template <>
struct Avx512::Products<uint16_t> {
  using Operand = uint16_t;
  using Left = __m512i;
  using Right = __m512i;
  static constexpr int64_t kPack = 2;
  static constexpr bool kNarrow = true;
  static TRIMTAB_INLINE Left Spread(const uint16_t* pair) {
    int32_t bits;
    std::memcpy(&bits, pair, sizeof bits);
    return _mm512_set1_epi32(bits);
  }
  static TRIMTAB_INLINE Right Load(const uint16_t* from) { return _mm512_loadu_si512(from); }
  static TRIMTAB_INLINE Right FirstOnly(Right right) { return _mm512_and_si512(right, _mm512_set1_epi32(0xffff)); }
  static TRIMTAB_INLINE Right LastOnly(Right right) { return _mm512_andnot_si512(_mm512_set1_epi32(0xffff), right); }
  static TRIMTAB_INLINE Vec Multiply(Left left, Right right, Vec sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(left), reinterpret_cast<__m512bh>(right));
  }
};

}  // namespace

TileKernel avx512::Kernel(bool narrow_cache) {
  if (narrow_cache) return {.attend = SegmentKernel<Avx512, uint16_t>::Attend, .narrow_queries = true};
  return {.attend = SegmentKernel<Avx512, float>::Attend, .narrow_queries = false};
}

}  // namespace trimtab

#pragma GCC pop_options
