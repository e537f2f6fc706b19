#include "server/engine/logit_scan.h"

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <limits>

#include "models/kernels/cpu/simd.h"

namespace trimtab {
namespace {

static_assert(kLogitBlock % (4 * kLanes) == 0);

float MaxLane(Float8 value) {
  value = Max8(value, __builtin_shuffle(value, Int8x32{4, 5, 6, 7, 0, 1, 2, 3}));
  value = Max8(value, __builtin_shuffle(value, Int8x32{2, 3, 0, 1, 6, 7, 4, 5}));
  value = Max8(value, __builtin_shuffle(value, Int8x32{1, 0, 3, 2, 5, 4, 7, 6}));
  return value[0];
}

// The block's largest logit. `bad` keeps its zeros unless a logit is NaN or infinite.
float ScanBlock(const float* block, Float8& bad) {
  Float8 max = Load8(block), other = Load8(block + kLanes);
  bad += (max - max) + (other - other);
  for (int64_t i = 2 * kLanes; i < kLogitBlock; i += 2 * kLanes) {
    const Float8 a = Load8(block + i), b = Load8(block + i + kLanes);
    bad += (a - a) + (b - b);
    max = Max8(a, max);
    other = Max8(b, other);
  }
  return MaxLane(Max8(max, other));
}

// As Exp8, for x <= 0 and -infinity: at most 1e-37 away from it, which no sum of weights that has a 1 in it sees.
inline Float8 ExpNonPositive(Float8 x) {
  const Float8 clamped = Max8(x, Broadcast8(-87.0f));
  // Adding and taking away 1.5 * 2^23 rounds to an integer.
  const Float8 magic = Broadcast8(12582912.0f);
  const Float8 shifted = clamped * 1.44269504088896341f + magic;
  const Float8 n = shifted - magic;
  const Float8 r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  Float8 p = Broadcast8(1.3981999507e-3f) + 1.9875691500e-4f * r;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + (r + 1.0f);
  // Times 2^n.
  return reinterpret_cast<Float8>(reinterpret_cast<Int8x32>(p) + (reinterpret_cast<Int8x32>(shifted) << 23));
}

float SumBlock(const float* block, Float8 max, Float8 scale) {
  Float8 sums[4] = {};
  for (int64_t i = 0; i < kLogitBlock; i += 4 * kLanes) {
    for (int64_t j = 0; j < 4; ++j) sums[j] += ExpNonPositive((Load8(block + i + j * kLanes) - max) * scale);
  }
  return Sum8((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// By mask of eight lanes: the numbers of the lanes that are set, in order, then anything.
using LaneTable = std::array<std::array<int32_t, kLanes>, 256>;
constexpr LaneTable MakeKeptLanes() {
  LaneTable table = {};
  for (size_t mask = 0; mask < table.size(); ++mask) {
    size_t count = 0;
    for (int32_t lane = 0; lane < kLanes; ++lane) {
      if ((mask >> lane & 1) != 0) table[mask][count++] = lane;
    }
  }
  return table;
}
alignas(32) constexpr LaneTable kKeptLanes = MakeKeptLanes();

// The last, incomplete block, filled up.
struct PaddedBlock {
  PaddedBlock(absl::Span<const float> rest, float padding) {
    std::fill(std::copy(rest.begin(), rest.end(), values), values + kLogitBlock, padding);
  }
  float values[kLogitBlock];
};

}  // namespace

void ScanLogits(absl::Span<const float> logits, LogitScan& scan) {
  const int64_t size = static_cast<int64_t>(logits.size()), whole = size / kLogitBlock;
  scan.block_max.resize((size + kLogitBlock - 1) / kLogitBlock);
  Float8 bad = {};
  for (int64_t i = 0; i < whole; ++i) scan.block_max[i] = ScanBlock(logits.data() + i * kLogitBlock, bad);
  if (whole * kLogitBlock < size) {
    const PaddedBlock block(logits.subspan(whole * kLogitBlock), logits.back());
    scan.block_max[whole] = ScanBlock(block.values, bad);
  }
  scan.finite = Sum8(bad) == 0;
  if (!scan.finite) return;
  const auto best = std::max_element(scan.block_max.begin(), scan.block_max.end());
  scan.max = *best;
  const int64_t begin = (best - scan.block_max.begin()) * kLogitBlock;
  scan.argmax = static_cast<TokenId>(std::find(logits.begin() + begin, logits.end(), *best) - logits.begin());
}

double SumExp(absl::Span<const float> logits, float max, float scale, std::vector<double>* block_sums) {
  const int64_t size = static_cast<int64_t>(logits.size()), whole = size / kLogitBlock;
  const Float8 max8 = Broadcast8(max), scale8 = Broadcast8(scale);
  if (block_sums != nullptr) block_sums->resize((size + kLogitBlock - 1) / kLogitBlock);
  double total = 0;
  for (int64_t i = 0; i < whole; ++i) {
    const double sum = SumBlock(logits.data() + i * kLogitBlock, max8, scale8);
    if (block_sums != nullptr) (*block_sums)[i] = sum;
    total += sum;
  }
  if (whole * kLogitBlock < size) {
    const PaddedBlock block(logits.subspan(whole * kLogitBlock), -std::numeric_limits<float>::infinity());
    const double sum = SumBlock(block.values, max8, scale8);
    if (block_sums != nullptr) (*block_sums)[whole] = sum;
    total += sum;
  }
  return total;
}

void Weights(absl::Span<const float> logits, float max, float scale, float* out) {
  const int64_t size = static_cast<int64_t>(logits.size()), whole = size / kLanes * kLanes;
  const Float8 max8 = Broadcast8(max), scale8 = Broadcast8(scale);
  for (int64_t i = 0; i < whole; i += kLanes)
    Store8(out + i, ExpNonPositive((Load8(logits.data() + i) - max8) * scale8));
  if (whole == size) return;
  Float8 rest = max8;
  for (int64_t i = whole; i < size; ++i) rest[i - whole] = logits[i];
  rest = ExpNonPositive((rest - max8) * scale8);
  for (int64_t i = whole; i < size; ++i) out[i] = rest[i - whole];
}

void GatherLogits(absl::Span<const float> logits, absl::Span<const float> block_max, float cut,
                  std::vector<TokenId>& ids, std::vector<float>& values) {
  static_assert(sizeof(TokenId) == sizeof(int32_t));
  const __m256 cut8 = _mm256_set1_ps(cut);
  for (size_t block = 0; block < block_max.size(); ++block) {
    if (block_max[block] < cut) continue;
    const int64_t begin = static_cast<int64_t>(block) * kLogitBlock;
    const int64_t end = std::min(begin + kLogitBlock, static_cast<int64_t>(logits.size()));
    // Without branches: eight are stored, those of at least `cut` first, and only these are kept.
    size_t count = ids.size();
    ids.resize(count + kLogitBlock + kLanes);
    values.resize(count + kLogitBlock + kLanes);
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      const __m256 eight = _mm256_loadu_ps(logits.data() + i);
      const int mask = _mm256_movemask_ps(_mm256_cmp_ps(eight, cut8, _CMP_GE_OQ));
      const __m256i lanes = _mm256_load_si256(reinterpret_cast<const __m256i*>(kKeptLanes[mask].data()));
      _mm256_storeu_ps(values.data() + count, _mm256_permutevar8x32_ps(eight, lanes));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(ids.data() + count),
                          _mm256_add_epi32(lanes, _mm256_set1_epi32(static_cast<int>(i))));
      count += __builtin_popcount(static_cast<unsigned>(mask));
    }
    for (; i < end; ++i) {
      ids[count] = static_cast<TokenId>(i);
      values[count] = logits[i];
      count += logits[i] >= cut ? 1 : 0;
    }
    ids.resize(count);
    values.resize(count);
  }
}

}  // namespace trimtab
