#include "models/attention/paged_attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "models/kernels/cpu/simd.h"

namespace trimtab {
namespace {

constexpr int64_t kQueryTile = 16;  // rows of one sequence that share a pass over the keys
constexpr int64_t kKeyTile = 64;    // keys whose scores are held at a time
constexpr int64_t kKeysAtOnce = 4;
// Multiplications below which a second thread costs more than it saves.
constexpr int64_t kThreadGrain = int64_t{1} << 18;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// What all tiles of a call share. Q: type of queries and results; C: of the cache.
template <typename Q, typename C>
struct Call {
  const Q* q;
  int64_t q_row_stride, q_head_stride;
  const C *keys, *values;  // [blocks, kv_heads, block_size, d]
  int64_t heads, kv_heads, block_size, d;
  int64_t width;  // d rounded up to whole vectors
  float scale;
  Q* out;  // [rows, heads, d]
};

// A tile of rows of one sequence and one key head, with all query heads of that key head.
struct Tile {
  const SequenceSpan* span;
  int64_t first, count;  // rows of the span
  int64_t kv_head;
};

// Buffers of one thread; rows are `width` long.
struct Scratch {
  std::vector<float> keys, values;    // [kKeyTile, width]
  std::vector<float> queries, sums;   // [queries, width]
  std::vector<float> maxima, totals;  // [queries]
  std::vector<float> scores;          // [2, kKeyTile]
};

template <typename T>
void LoadRow(const T* from, int64_t d, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) Store8(to + i, Load8(from + i));
  for (; i < d; ++i) to[i] = static_cast<float>(from[i]);
}

template <typename C>
void WriteCache(const at::Tensor& rows, const at::Tensor& slots, const at::Tensor& cache, int64_t block_size) {
  const at::Tensor from = rows.to(cache.scalar_type());
  const int64_t heads = from.size(1), d = from.size(2);
  TORCH_CHECK(from.stride(2) == 1, "keys and values must be dense in their last dimension");
  const C* in = from.const_data_ptr<C>();
  C* out = cache.mutable_data_ptr<C>();
  const int64_t* slot = slots.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < from.size(0); ++row) {
    const int64_t block = slot[row] / block_size, offset = slot[row] % block_size;
    for (int64_t head = 0; head < heads; ++head) {
      std::memcpy(out + ((block * heads + head) * block_size + offset) * d,
                  in + row * from.stride(0) + head * from.stride(1), static_cast<size_t>(d) * sizeof(C));
    }
  }
}

// Copies `count` cached rows of one head from position `from` on into floats [count, width].
template <typename Q, typename C>
void Gather(const Call<Q, C>& call, const C* cache, const Tile& tile, int64_t from, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t block = tile.span->block_table[static_cast<size_t>((from + i) / call.block_size)];
    const int64_t row = (block * call.kv_heads + tile.kv_head) * call.block_size + (from + i) % call.block_size;
    LoadRow(cache + row * call.d, call.d, out + i * call.width);
  }
}

// scores[q][n] = <queries[q], keys[n]> for kQueries queries and keys [0, count), count a multiple of kKeysAtOnce.
template <int kQueries>
void Scores(const float* queries, const float* keys, int64_t width, int64_t count, float* scores) {
  for (int64_t n = 0; n < count; n += kKeysAtOnce) {
    Float8 sums[kQueries][kKeysAtOnce] = {};
    for (int64_t i = 0; i < width; i += kLanes) {
      for (int64_t k = 0; k < kKeysAtOnce; ++k) {
        const Float8 key = Load8(keys + (n + k) * width + i);
        for (int q = 0; q < kQueries; ++q) sums[q][k] += Load8(queries + q * width + i) * key;
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      for (int64_t k = 0; k < kKeysAtOnce; ++k) scores[q * kKeyTile + n + k] = Sum8(sums[q][k]);
    }
  }
}

// sums[0 .. kVectors * 8) = sums * shrink + weights[n] * values[n] over n < count.
template <int kVectors>
void AddWeighted(const float* weights, const float* values, int64_t width, int64_t count, float shrink, float* sums) {
  Float8 total[kVectors];
  for (int i = 0; i < kVectors; ++i) total[i] = Load8(sums + i * kLanes) * shrink;
  for (int64_t n = 0; n < count; ++n) {
    const Float8 weight = Broadcast8(weights[n]);
    for (int i = 0; i < kVectors; ++i) total[i] += weight * Load8(values + n * width + i * kLanes);
  }
  for (int i = 0; i < kVectors; ++i) Store8(sums + i * kLanes, total[i]);
}

// One query against one tile of keys: scores become weights, the running softmax (Milakov and Gimelshein 2018) goes on.
void Accumulate(float* scores, int64_t visible, const float* values, int64_t width, float& maximum, float& total,
                float* sums) {
  const int64_t padded = (visible + kLanes - 1) / kLanes * kLanes;
  for (int64_t n = visible; n < padded; ++n) scores[n] = kMinusInfinity;
  Float8 largest = Broadcast8(maximum);
  for (int64_t n = 0; n < padded; n += kLanes) largest = Max8(largest, Load8(scores + n));
  float new_maximum = largest[0];
  for (int64_t i = 1; i < kLanes; ++i) new_maximum = std::max(new_maximum, largest[i]);
  Float8 added{};
  for (int64_t n = 0; n < padded; n += kLanes) {
    const Float8 weights = Exp8(Load8(scores + n) - new_maximum);
    Store8(scores + n, weights);
    added += weights;
  }
  const float shrink = std::exp(maximum - new_maximum);  // 0 for the first tile
  total = total * shrink + Sum8(added);
  maximum = new_maximum;
  int64_t i = 0;
  for (; i + 8 * kLanes <= width; i += 8 * kLanes) AddWeighted<8>(scores, values + i, width, visible, shrink, sums + i);
  for (; i < width; i += kLanes) AddWeighted<1>(scores, values + i, width, visible, shrink, sums + i);
}

template <typename Q, typename C>
void AttendTile(const Call<Q, C>& call, const Tile& tile, Scratch& scratch) {
  const int64_t group = call.heads / call.kv_heads, queries = tile.count * group, width = call.width;
  const SequenceSpan& span = *tile.span;
  scratch.queries.assign(static_cast<size_t>(queries * width), 0);
  scratch.sums.assign(static_cast<size_t>(queries * width), 0);
  scratch.maxima.assign(static_cast<size_t>(queries), kMinusInfinity);
  scratch.totals.assign(static_cast<size_t>(queries), 0);
  scratch.keys.resize(static_cast<size_t>(kKeyTile * width));
  scratch.values.resize(static_cast<size_t>(kKeyTile * width));
  scratch.scores.resize(static_cast<size_t>(2 * kKeyTile));
  const auto row_of = [&](int64_t query) { return span.begin + tile.first + query / group; };
  const auto head_of = [&](int64_t query) { return tile.kv_head * group + query % group; };
  for (int64_t i = 0; i < queries; ++i) {
    float* query = scratch.queries.data() + i * width;
    LoadRow(call.q + row_of(i) * call.q_row_stride + head_of(i) * call.q_head_stride, call.d, query);
    for (int64_t j = 0; j < width; j += kLanes) Store8(query + j, Load8(query + j) * call.scale);
  }
  const int64_t last = span.context + tile.first + tile.count;  // one past the last visible position
  // Tiles of keys begin at multiples of kKeyTile: the same sums whatever the chunk that the row came in.
  for (int64_t begin = 0; begin < last; begin += kKeyTile) {
    const int64_t keys = std::min(kKeyTile, last - begin);
    Gather(call, call.keys, tile, begin, keys, scratch.keys.data());
    Gather(call, call.values, tile, begin, keys, scratch.values.data());
    const int64_t padded = (keys + kKeysAtOnce - 1) / kKeysAtOnce * kKeysAtOnce;
    for (int64_t i = 0; i < queries; i += 2) {
      const int64_t pair = std::min<int64_t>(2, queries - i);
      const float* query = scratch.queries.data() + i * width;
      if (pair == 2) {
        Scores<2>(query, scratch.keys.data(), width, padded, scratch.scores.data());
      } else {
        Scores<1>(query, scratch.keys.data(), width, padded, scratch.scores.data());
      }
      for (int64_t j = i; j < i + pair; ++j) {
        const int64_t visible = std::min(keys, span.context + tile.first + j / group + 1 - begin);
        if (visible <= 0) continue;
        Accumulate(scratch.scores.data() + (j - i) * kKeyTile, visible, scratch.values.data(), width,
                   scratch.maxima[static_cast<size_t>(j)], scratch.totals[static_cast<size_t>(j)],
                   scratch.sums.data() + j * width);
      }
    }
  }
  for (int64_t i = 0; i < queries; ++i) {
    const float inverse = 1.0f / scratch.totals[static_cast<size_t>(i)];
    Q* to = call.out + (row_of(i) * call.heads + head_of(i)) * call.d;
    const float* sum = scratch.sums.data() + i * width;
    int64_t j = 0;
    for (; j + kLanes <= call.d; j += kLanes) Store8(to + j, Load8(sum + j) * inverse);
    for (; j < call.d; ++j) to[j] = static_cast<Q>(sum[j] * inverse);
  }
}

template <typename Q, typename C>
void Run(const Call<Q, C>& call, const TokenLayout& layout) {
  std::vector<Tile> tiles;
  int64_t work = 0;  // multiplications
  for (const SequenceSpan& span : layout.sequences) {
    work += 2 * span.length * (span.context + span.length) * call.heads * call.d;
    for (int64_t first = 0; first < span.length; first += kQueryTile) {
      for (int64_t head = 0; head < call.kv_heads; ++head) {
        tiles.push_back({&span, first, std::min(kQueryTile, span.length - first), head});
      }
    }
  }
  // Threads take the next tile when they are done with one: later tiles of a chunk see more keys.
  std::atomic<size_t> next{0};
  const int64_t threads = std::clamp<int64_t>(work / kThreadGrain, 1, at::get_num_threads());
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    thread_local Scratch scratch;
    for (size_t i = next.fetch_add(1); i < tiles.size(); i = next.fetch_add(1)) AttendTile(call, tiles[i], scratch);
  });
}

}  // namespace

at::Tensor PagedAttention::Attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const TokenLayout& layout) {
  const at::Tensor &keys = cache_.keys(layer), &values = cache_.values(layer);
  const int64_t heads = q.size(1), d = q.size(2), kv_heads = k.size(1), block_size = cache_.block_size();
  TORCH_CHECK(q.stride(2) == 1 && keys.size(1) == kv_heads && keys.size(3) == d && heads % kv_heads == 0,
              "paged attention: queries and cache do not fit together");
  at::Tensor out = at::empty({q.size(0), heads, d}, q.options());
  const auto run = [&](auto query_tag, auto cache_tag) {
    using Q = decltype(query_tag);
    using C = decltype(cache_tag);
    WriteCache<C>(k, layout.slots, keys, block_size);
    WriteCache<C>(v, layout.slots, values, block_size);
    Run<Q, C>({.q = q.const_data_ptr<Q>(),
               .q_row_stride = q.stride(0),
               .q_head_stride = q.stride(1),
               .keys = keys.const_data_ptr<C>(),
               .values = values.const_data_ptr<C>(),
               .heads = heads,
               .kv_heads = kv_heads,
               .block_size = block_size,
               .d = d,
               .width = (d + kLanes - 1) / kLanes * kLanes,
               .scale = 1.0f / std::sqrt(static_cast<float>(d)),
               .out = out.mutable_data_ptr<Q>()},
              layout);
  };
  const bool narrow_queries = q.scalar_type() == at::kBFloat16, narrow_cache = keys.scalar_type() == at::kBFloat16;
  TORCH_CHECK((narrow_queries || q.scalar_type() == at::kFloat) && (narrow_cache || keys.scalar_type() == at::kFloat),
              "paged attention takes float32 and bfloat16");
  if (narrow_queries) {
    narrow_cache ? run(c10::BFloat16{}, c10::BFloat16{}) : run(c10::BFloat16{}, float{});
  } else {
    narrow_cache ? run(float{}, c10::BFloat16{}) : run(float{}, float{});
  }
  return out;
}

}  // namespace trimtab
