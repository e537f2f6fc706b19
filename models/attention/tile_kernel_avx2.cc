// The tile kernel in 32-byte vectors, for every x86-64-v3 processor. Queries and weights stay in float32; a bfloat16
// cache is widened in registers.
#include <immintrin.h>

#include <cstdint>
#include <limits>

#include "models/attention/tile_kernel.h"
#include "models/attention/tile_kernel_impl.h"

namespace trimtab {
namespace {

struct Avx2 {
  using Vec = __m256;
  static constexpr int64_t kLanes = 8;
  static constexpr int kQueries = 3, kColumns = 2;

  static TRIMTAB_INLINE Vec Zero() { return _mm256_setzero_ps(); }
  static TRIMTAB_INLINE Vec Load(const float* from) { return _mm256_loadu_ps(from); }
  static TRIMTAB_INLINE void Store(float* to, Vec value) { _mm256_storeu_ps(to, value); }
  static TRIMTAB_INLINE Vec Spread(float value) { return _mm256_set1_ps(value); }
  static TRIMTAB_INLINE Vec Add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  static TRIMTAB_INLINE Vec Subtract(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
  static TRIMTAB_INLINE Vec Multiply(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static TRIMTAB_INLINE Vec MultiplyAdd(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  static TRIMTAB_INLINE Vec Max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
  static TRIMTAB_INLINE float Largest(Vec value) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
  }
  // -infinity in the lanes from `count` on.
  static TRIMTAB_INLINE Vec Mask(Vec value, int64_t count) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i behind = _mm256_cmpgt_epi32(lanes, _mm256_set1_epi32(static_cast<int>(count) - 1));
    return _mm256_blendv_ps(value, Spread(-std::numeric_limits<float>::infinity()), _mm256_castsi256_ps(behind));
  }
  // -infinity in the first `count` lanes.
  static TRIMTAB_INLINE Vec MaskFirst(Vec value, int64_t count) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i before = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes);
    return _mm256_blendv_ps(value, Spread(-std::numeric_limits<float>::infinity()), _mm256_castsi256_ps(before));
  }
  // 2^x for x <= 0.
  static TRIMTAB_INLINE Vec Exp2(Vec x) {
    const Vec clamped = _mm256_max_ps(Spread(-126.0f), x);
    const Vec n = _mm256_round_ps(clamped, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    const __m256i power = _mm256_add_epi32(_mm256_castps_si256(PowerOfTwo<Avx2>(Subtract(clamped, n))), exponent);
    return _mm256_andnot_ps(_mm256_cmp_ps(x, Spread(-126.0f), _CMP_LT_OQ), _mm256_castsi256_ps(power));
  }

  template <typename C>
  struct Products;
};

template <>
struct Avx2::Products<float> {
  using Operand = float;
  using Left = Vec;
  using Right = Vec;
  static constexpr int64_t kPack = 1;
  static constexpr bool kNarrow = false;
  static TRIMTAB_INLINE Left Spread(const float* value) { return Avx2::Spread(*value); }
  static TRIMTAB_INLINE Right Load(const float* from) { return Avx2::Load(from); }
  static TRIMTAB_INLINE Right FirstOnly(Right right) { return right; }
  static TRIMTAB_INLINE Right LastOnly(Right right) { return right; }
  static TRIMTAB_INLINE Vec Multiply(Left left, Right right, Vec sum) { return MultiplyAdd(left, right, sum); }
};

// Bits of bfloat16 in pairs, as two floats.
template <>
struct Avx2::Products<uint16_t> {
  using Operand = float;
  struct Pair {
    Vec first, second;
  };
  using Left = Pair;
  using Right = Pair;
  static constexpr int64_t kPack = 2;
  static constexpr bool kNarrow = false;
  static TRIMTAB_INLINE Left Spread(const float* pair) { return {Avx2::Spread(pair[0]), Avx2::Spread(pair[1])}; }
  static TRIMTAB_INLINE Right Load(const uint16_t* from) {
    const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000))))};
  }
  static TRIMTAB_INLINE Right FirstOnly(Right right) { return {right.first, Zero()}; }
  static TRIMTAB_INLINE Right LastOnly(Right right) { return {Zero(), right.second}; }
  static TRIMTAB_INLINE Vec Multiply(Left left, Right right, Vec sum) {
    return MultiplyAdd(left.second, right.second, MultiplyAdd(left.first, right.first, sum));
  }
};

}  // namespace

TileKernel avx2::Kernel(bool narrow_cache) {
  if (narrow_cache) return {.attend = SegmentKernel<Avx2, uint16_t>::Attend, .narrow_queries = false};
  return {.attend = SegmentKernel<Avx2, float>::Attend, .narrow_queries = false};
}

}  // namespace trimtab
