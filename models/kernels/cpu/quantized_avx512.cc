#include "models/kernels/cpu/quantized_avx512.h"

#include <cstring>

// GCC 12 warns of its own "undefined" vectors in the header (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
// The target must be set before the header so that its functions can be inlined here.
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#include <immintrin.h>

namespace trimtab::cpu {
namespace {

constexpr int64_t kGroup = 32;
constexpr int64_t kFewRows = 32;
constexpr int64_t kAhead = 16;  // groups between the one that is computed with and the one that is asked for

template <int kBits>
constexpr int64_t kHalfBytes = (kBits == 4 ? 256 : 512) + 64;

inline __m512i Broadcast4(const int8_t* from) {
  int32_t word;
  std::memcpy(&word, from, sizeof(word));
  return _mm512_set1_epi32(word);
}

// kRows rows of x against kHalves times 16 weight rows. Integer sums are exact, so that their order is free; the float
// sums go over the groups in order.
// With kPrefetch the whole strip is asked for on the way, some groups ahead: the processor's own look-ahead is shorter
// than a group with several rows takes. It comes to the second cache: asked into the first, 8 rows of 8 bits take 1.3
// times longer.
template <int kBits, int kRows, int kHalves, bool kPrefetch>
inline void Tile(const uint8_t* data, int64_t groups, const int8_t* x, const float* scales, const float* sums,
                 float* out, int64_t stride) {
  constexpr int kChains = kRows * kHalves >= 4 ? 1 : 2;  // so that additions need not wait for each other
  const int64_t width = groups * kGroup;
  __m512 total[kHalves][kRows];
  for (int h = 0; h < kHalves; ++h) {
    for (int r = 0; r < kRows; ++r) total[h][r] = _mm512_setzero_ps();
  }
  for (int64_t g = 0; g < groups; ++g, data += 2 * kHalfBytes<kBits>) {
    __m512i sum[kHalves][kRows][kChains];
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        for (int c = 0; c < kChains; ++c) sum[h][r][c] = _mm512_setzero_si512();
      }
    }
    if constexpr (kPrefetch) {
#pragma GCC unroll 20
      for (int64_t line = 0; line < 2 * kHalfBytes<kBits>; line += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(data + kAhead * 2 * kHalfBytes<kBits> + line), _MM_HINT_T1);
      }
    }
    const int8_t* values = x + g * kGroup;
    if constexpr (kBits == 4) {
      const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 2
        for (int h = 0; h < kHalves; ++h) {
          const __m512i both = _mm512_loadu_si512(data + h * kHalfBytes<kBits> + i * 64);
          const __m512i even = _mm512_and_si512(both, low);
          const __m512i odd = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) {
            const int8_t* row = values + r * width + i * 8;
            sum[h][r][0] = _mm512_dpbusd_epi32(sum[h][r][0], even, Broadcast4(row));
            sum[h][r][kChains - 1] = _mm512_dpbusd_epi32(sum[h][r][kChains - 1], odd, Broadcast4(row + 4));
          }
        }
      }
    } else {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
#pragma GCC unroll 2
        for (int h = 0; h < kHalves; ++h) {
          const __m512i weights = _mm512_loadu_si512(data + h * kHalfBytes<kBits> + i * 64);
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) {
            sum[h][r][i % kChains] =
                _mm512_dpbusd_epi32(sum[h][r][i % kChains], weights, Broadcast4(values + r * width + i * 4));
          }
        }
      }
    }
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      const uint8_t* tail = data + h * kHalfBytes<kBits> + (kHalfBytes<kBits> - 64);
      const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(tail)));
      const __m512 minimum = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(tail + 32)));
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const __m512i integers = kChains == 2 ? _mm512_add_epi32(sum[h][r][0], sum[h][r][kChains - 1]) : sum[h][r][0];
        const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(scales[r * groups + g]));
        total[h][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(integers), factor, total[h][r]);
        total[h][r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(sums[r * groups + g]), total[h][r]);
      }
    }
  }
  for (int h = 0; h < kHalves; ++h) {
    for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(out + r * stride + h * 16, total[h][r]);
  }
}

template <int kBits, int kRows, int kHalves, bool kPrefetch = true>
void Rows(const StripProduct& p, int64_t row) {
  const int64_t width = p.groups * kGroup;
  const int8_t* x = p.values + row * width;
  const float *scales = p.scales + row * p.groups, *sums = p.sums + row * p.groups;
  float* out = p.out + row * p.stride;
  if constexpr (kHalves == 2) {
    Tile<kBits, kRows, 2, kPrefetch>(p.strip, p.groups, x, scales, sums, out, p.stride);
  } else {
    // The first pass over the strip asks for both halves.
    Tile<kBits, kRows, 1, kPrefetch>(p.strip, p.groups, x, scales, sums, out, p.stride);
    Tile<kBits, kRows, 1, false>(p.strip + kHalfBytes<kBits>, p.groups, x, scales, sums, out + 16, p.stride);
  }
}

// Rows in tiles of kTile, then what is left. Six rows against both halves read a strip once and are best for few rows,
// where memory is what takes time; eight against one half unpack least.
template <int kBits, int kTile, int kHalves>
void Multiply(const StripProduct& p) {
  int64_t row = 0;
  if (p.count >= kTile) {
    Rows<kBits, kTile, kHalves>(p, 0);
    for (row = kTile; row + kTile <= p.count; row += kTile) Rows<kBits, kTile, kHalves, false>(p, row);
  }
  switch (p.count - row) {
    case 7:
      return Rows<kBits, 7, 1>(p, row);
    case 6:
      return Rows<kBits, 6, 1>(p, row);
    case 5:
      return Rows<kBits, 5, 1>(p, row);
    case 4:
      return Rows<kBits, 4, 2>(p, row);
    case 3:
      return Rows<kBits, 3, 2>(p, row);
    case 2:
      return Rows<kBits, 2, 2>(p, row);
    case 1:
      return Rows<kBits, 1, 2>(p, row);
    default:
      return;
  }
}

// 16 floats as bfloat16 in the upper halves, rounded to nearest even.
inline __m512i RoundToUpper(__m512 value) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  return _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
}

// Two columns of 16 rows, whose quants are at `shift` and 8 bits above.
inline __m512i UnpackPair(__m512i quants, int shift, __m512i mask, __m512 scale, __m512 minimum) {
  const __m128i low = _mm_cvtsi32_si128(shift), high = _mm_cvtsi32_si128(shift + 8);
  const __m512i even = _mm512_and_si512(_mm512_srl_epi32(quants, low), mask);
  const __m512i odd = _mm512_and_si512(_mm512_srl_epi32(quants, high), mask);
  const __m512i first = RoundToUpper(_mm512_fmadd_ps(_mm512_cvtepi32_ps(even), scale, minimum));
  const __m512i second = RoundToUpper(_mm512_fmadd_ps(_mm512_cvtepi32_ps(odd), scale, minimum));
  return _mm512_or_si512(_mm512_srli_epi32(first, 16), _mm512_and_si512(second, _mm512_set1_epi32(-65536)));
}

template <int kBits>
void UnpackHalf(const uint8_t* half, int64_t groups, uint16_t* out) {
  constexpr int64_t kPair = 128;              // numbers of one pair of columns of a block
  constexpr int kPairs = kBits == 4 ? 4 : 2;  // of a line of 64 bytes
  const __m512i mask = _mm512_set1_epi32(kBits == 4 ? 15 : 255);
  for (int64_t g = 0; g < groups; ++g, half += 2 * kHalfBytes<kBits>) {
    const uint8_t* tail = half + kHalfBytes<kBits> - 64;
    const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(tail)));
    const __m512 minimum = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(tail + 32)));
    for (const uint8_t* line = half; line < tail; line += 64) {
      const __m512i quants = _mm512_loadu_si512(line);
#pragma GCC unroll 4
      for (int i = 0; i < kPairs; ++i, out += kPair) {
        // Of 4 bits the low halves of bytes come first, then the high ones.
        const int shift = i % 2 * 16 + i / 2 * 4;
        _mm512_storeu_si512(out, UnpackPair(quants, shift, mask, scale, minimum));
      }
    }
  }
}

}  // namespace

bool HasVnni() {
  return __builtin_cpu_supports("avx512vnni") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512dq") != 0;
}

void MultiplyStripVnni(const StripProduct& product) {
  if (product.bits == 8) {
    product.count <= kFewRows ? Multiply<8, 6, 2>(product) : Multiply<8, 8, 1>(product);
  } else {
    product.count <= kFewRows ? Multiply<4, 6, 2>(product) : Multiply<4, 8, 1>(product);
  }
}

void UnpackHalfAvx512(const uint8_t* half, int bits, int64_t groups, uint16_t* out) {
  bits == 8 ? UnpackHalf<8>(half, groups, out) : UnpackHalf<4>(half, groups, out);
}

void QuantizeGroupsAvx512(const float* x, int64_t groups, int8_t* values, float* scales, float* sums) {
  for (int64_t g = 0; g < groups; ++g) {
    const __m512 a = _mm512_loadu_ps(x + g * kGroup), b = _mm512_loadu_ps(x + g * kGroup + 16);
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    const float scale = largest / 127.0f;
    const __m512 inverse = _mm512_set1_ps(scale > 0 ? 1.0f / scale : 0.0f);
    const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse));
    const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + g * kGroup), _mm512_cvtsepi32_epi8(low));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + g * kGroup + 16), _mm512_cvtsepi32_epi8(high));
    scales[g] = scale;
    sums[g] = scale * static_cast<float>(_mm512_reduce_add_epi32(_mm512_add_epi32(low, high)));
  }
}

}  // namespace trimtab::cpu
#pragma GCC pop_options
