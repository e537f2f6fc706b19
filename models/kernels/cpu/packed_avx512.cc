#include "models/kernels/cpu/packed_avx512.h"

#include <cpuid.h>

#include <cstring>

// GCC 12 warns of its own "undefined" vectors in the header (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
// The target must be set before the header so that its functions can be inlined here.
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#include <immintrin.h>

namespace trimtab::cpu {
namespace {

constexpr int64_t kColumns = 64;
constexpr int kLines = 4;       // registers of 16 columns
constexpr int64_t kAhead = 32;  // pairs between those that are computed with and those that are asked for

inline __m512bh BroadcastPair(const uint16_t* from) {
  int32_t pair;
  std::memcpy(&pair, from, sizeof(pair));
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
}

// kRows rows against the block. With kPrefetch the block's memory, and what follows it, is asked for on the way.
template <int kRows, bool kPrefetch>
inline void Tile(const BlockProduct& p, int64_t row) {
  const int64_t width = 2 * p.pairs;
  const uint16_t* x = p.x + row * width;
  const uint16_t* block = p.block;
  __m512 sum[kRows][kLines];
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < kLines; ++i) sum[r][i] = _mm512_setzero_ps();
  }
  for (int64_t pair = 0; pair < p.pairs; ++pair, block += 2 * kColumns) {
    __m512bh weights[kLines];
#pragma GCC unroll 4
    for (int i = 0; i < kLines; ++i) {
      weights[i] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(block + i * 32));
      if constexpr (kPrefetch) {
        _mm_prefetch(reinterpret_cast<const char*>(block + kAhead * 2 * kColumns + i * 32), _MM_HINT_T1);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512bh values = BroadcastPair(x + r * width + 2 * pair);
#pragma GCC unroll 4
      for (int i = 0; i < kLines; ++i) sum[r][i] = _mm512_dpbf16_ps(sum[r][i], values, weights[i]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < kLines; ++i) _mm512_storeu_ps(p.out + (row + r) * p.stride + i * 16, sum[r][i]);
  }
}

template <bool kPrefetch>
void Rest(const BlockProduct& p, int64_t row) {
  switch (p.count - row) {
    case 5:
      return Tile<5, kPrefetch>(p, row);
    case 4:
      return Tile<4, kPrefetch>(p, row);
    case 3:
      return Tile<3, kPrefetch>(p, row);
    case 2:
      return Tile<2, kPrefetch>(p, row);
    case 1:
      return Tile<1, kPrefetch>(p, row);
    default:
      return;
  }
}

}  // namespace

bool HasBFloat16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool tiles = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 22 & 1) != 0;  // AMX-BF16
  return !tiles && __builtin_cpu_supports("avx512bf16") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512dq") != 0;
}

void MultiplyBlockBFloat16(const BlockProduct& p) {
  constexpr int kRows = 6;  // and 4 lines of weights fill the registers
  if (p.count < kRows) return Rest<true>(p, 0);
  Tile<kRows, true>(p, 0);
  int64_t row = kRows;
  for (; row + kRows <= p.count; row += kRows) Tile<kRows, false>(p, row);
  Rest<false>(p, row);
}

}  // namespace trimtab::cpu
#pragma GCC pop_options
