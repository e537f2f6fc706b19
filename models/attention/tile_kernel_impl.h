// The body of a TileKernel over a set of vector operations. Included by the source of each instruction set, after it
// has told the compiler which instructions to use; everything here is local to that source, so that no instruction
// leaks into code that runs on every processor.
//
// A set `V` has: kLanes; kQueries, kColumns (sums held in registers: kQueries x kColumns); Vec and its operations; and
// for each type C of the cache Products<C>: `Operand` (what stands left of a product), `kPack` elements that one lane
// multiplies at a time, and Multiply. Sums run over packs in order, whatever the number of queries and columns.
#ifndef TRIMTAB_MODELS_ATTENTION_TILE_KERNEL_IMPL_H_
#define TRIMTAB_MODELS_ATTENTION_TILE_KERNEL_IMPL_H_

#include <cstdint>
#include <limits>

#include "models/attention/tile_kernel.h"

namespace trimtab {
namespace {

#define TRIMTAB_INLINE inline __attribute__((always_inline))

// 2^r for |r| <= 1/2 to about 2 units in the last place, the polynomial of Cephes' exp2f.
template <typename V>
TRIMTAB_INLINE typename V::Vec PowerOfTwo(typename V::Vec r) {
  typename V::Vec p = V::Spread(1.535336188319500e-4f);
  p = V::MultiplyAdd(p, r, V::Spread(1.339887440266574e-3f));
  p = V::MultiplyAdd(p, r, V::Spread(9.618437357674640e-3f));
  p = V::MultiplyAdd(p, r, V::Spread(5.550332471162809e-2f));
  p = V::MultiplyAdd(p, r, V::Spread(2.402264791363012e-1f));
  p = V::MultiplyAdd(p, r, V::Spread(6.931472028550421e-1f));
  return V::MultiplyAdd(p, r, V::Spread(1.0f));
}

// Pointers to the kKeyTile keys and values of a tile, group by group.
template <typename C>
struct TilePointers {
  const C* keys[kKeyTile / kKeyGroup];    // [depth / pack, stride, pack], the group's slots first
  const C* values[kKeyTile / kKeyGroup];  // [kKeyGroup / pack, width, pack]
  int64_t key_stride;                     // elements from a pack to the next
};

template <typename V, typename C>
struct SegmentKernel {
  using Vec = typename V::Vec;
  using Product = typename V::template Products<C>;
  using Operand = typename Product::Operand;
  static constexpr int64_t kLanes = V::kLanes, kPack = Product::kPack;
  static constexpr int64_t kGroups = kKeyTile / kKeyGroup;
  static constexpr int kNearCache = 2;  // of __builtin_prefetch: the second level

  // Copies `count` positions from `from` on into one group of whole slots, for block sizes that are no multiple of it.
  static void Gather(const SegmentWork& work, int64_t from, int64_t count, C* keys, C* values) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t block = work.block_table[(from + i) / work.block_size], slot = (from + i) % work.block_size;
      const C* key = static_cast<const C*>(work.keys) + block * work.key_stride + slot * kPack;
      for (int64_t j = 0; j < work.depth; ++j) {
        keys[(j / kPack * kKeyGroup + i) * kPack + j % kPack] = key[j / kPack * work.block_slots * kPack + j % kPack];
      }
      const C* value = static_cast<const C*>(work.values) + block * work.value_stride +
                       slot / kPack * work.width * kPack + slot % kPack;
      for (int64_t j = 0; j < work.width; ++j) {
        values[(i / kPack * work.width + j) * kPack + i % kPack] = value[j * kPack];
      }
    }
  }

  // The tile from position `begin` on.
  static TilePointers<C> Locate(const SegmentWork& work, int64_t begin) {
    const int64_t end = begin + kKeyTile < work.end ? begin + kKeyTile : work.end;
    TilePointers<C> tile{};
    const bool whole = work.block_size % kKeyGroup == 0;
    tile.key_stride = (whole ? work.block_slots : kKeyGroup) * kPack;
    for (int64_t group = 0; begin + group * kKeyGroup < end; ++group) {
      const int64_t from = begin + group * kKeyGroup;
      if (whole) {
        const int64_t block = work.block_table[from / work.block_size], slot = from % work.block_size;
        tile.keys[group] = static_cast<const C*>(work.keys) + block * work.key_stride + slot * kPack;
        tile.values[group] = static_cast<const C*>(work.values) + block * work.value_stride + slot * work.width;
      } else {
        C* keys = static_cast<C*>(work.gathered) + group * kKeyGroup * (work.depth + work.width);
        C* values = keys + kKeyGroup * work.depth;
        Gather(work, from, end - from < kKeyGroup ? end - from : kKeyGroup, keys, values);
        tile.keys[group] = keys;
        tile.values[group] = values;
      }
    }
    for (int64_t group = (end - begin + kKeyGroup - 1) / kKeyGroup; group < kGroups; ++group) {
      tile.keys[group] = tile.keys[0];  // read, and masked
      tile.values[group] = tile.values[0];
    }
    return tile;
  }

  static TilePointers<C> LocateNext(const SegmentWork& work) {
    SegmentWork next = work;
    next.keys = work.next.keys;
    next.values = work.next.values;
    next.block_table = work.next.block_table;
    next.end = work.next.end;
    return Locate(next, work.next.begin);
  }

  // scores[q][lane] = <query q, key of the lane>, for kColumns vectors of keys.
  template <int kQueries, int kColumns, bool kPrefetch>
  static TRIMTAB_INLINE void Scores(const Operand* queries, int64_t depth, const C* const (&keys)[kColumns],
                                    const C* const (&next)[kColumns], int64_t key_stride, float* scores) {
    Vec sums[kQueries][kColumns];
    for (int q = 0; q < kQueries; ++q) {
      for (int c = 0; c < kColumns; ++c) sums[q][c] = V::Zero();
    }
    for (int64_t i = 0; i < depth; i += kPack) {
      typename Product::Right right[kColumns];
      for (int c = 0; c < kColumns; ++c) {
        right[c] = Product::Load(keys[c] + i / kPack * key_stride);
        if constexpr (kPrefetch) __builtin_prefetch(next[c] + i / kPack * key_stride, 0, kNearCache);
      }
      for (int q = 0; q < kQueries; ++q) {
        const typename Product::Left left = Product::Spread(queries + q * depth + i);
        for (int c = 0; c < kColumns; ++c) sums[q][c] = Product::Multiply(left, right[c], sums[q][c]);
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      for (int c = 0; c < kColumns; ++c) V::Store(scores + q * kKeyTile + c * kLanes, sums[q][c]);
    }
  }

  // sums[q][0 .. kColumns * kLanes) = sums * shrink[q] + weights[q] * values, over the keys [hidden[q], seen[q]) in
  // order. What all queries see is done for all at once; the rest for each query alone, so that no weight of zero ever
  // meets a value that is not a number.
  template <int kQueries, int kColumns, bool kPrefetch>
  static TRIMTAB_INLINE void AddWeighted(const Operand* weights, const float* shrink, const int64_t* hidden,
                                         const int64_t* seen, const C* const* values, const C* const* next,
                                         int64_t width, float* sums) {
    Vec totals[kQueries][kColumns];
    int64_t first = 0, shared = kKeyTile;
    for (int q = 0; q < kQueries; ++q) {
      first = hidden[q] > first ? hidden[q] : first;
      shared = seen[q] < shared ? seen[q] : shared;
      const Vec factor = V::Spread(shrink[q]);
      for (int c = 0; c < kColumns; ++c) totals[q][c] = V::Multiply(V::Load(sums + q * width + c * kLanes), factor);
    }
    first = (first + kPack - 1) / kPack * kPack;
    shared -= shared % kPack;
    if (shared < first) shared = first = kKeyTile;  // nothing: each query's keys are before that
    // Keys [begin, end) for query q alone, as far as it sees them.
    const auto add_alone = [&](int q, int64_t begin, int64_t end) __attribute__((always_inline)) {
      for (int64_t n = begin; n < end; n += kPack) {
        const C* value = values[n / kKeyGroup] + n % kKeyGroup * width;
        const typename Product::Left left = Product::Spread(weights + q * kKeyTile + n);
        for (int c = 0; c < kColumns; ++c) {
          typename Product::Right right = Product::Load(value + c * kLanes * kPack);
          if (n < hidden[q]) right = Product::LastOnly(right);
          if (n + kPack > seen[q]) right = Product::FirstOnly(right);
          totals[q][c] = Product::Multiply(left, right, totals[q][c]);
        }
      }
    };
    const auto smaller = [](int64_t a, int64_t b) { return a < b ? a : b; };
    for (int q = 0; q < kQueries; ++q) add_alone(q, hidden[q] - hidden[q] % kPack, smaller(first, seen[q]));
    for (int64_t group = first / kKeyGroup; group * kKeyGroup < shared; ++group) {
      const int64_t begin = first > group * kKeyGroup ? first : group * kKeyGroup;
      const int64_t end = smaller(group * kKeyGroup + kKeyGroup, shared);
      const C* value = values[group] + begin % kKeyGroup * width;
      for (int64_t n = begin; n < end; n += kPack, value += width * kPack) {
        typename Product::Right right[kColumns];
        for (int c = 0; c < kColumns; ++c) {
          right[c] = Product::Load(value + c * kLanes * kPack);
          if constexpr (kPrefetch)
            __builtin_prefetch(next[group] + (value - values[group]) + c * kLanes * kPack, 0, kNearCache);
        }
        for (int q = 0; q < kQueries; ++q) {
          const typename Product::Left left = Product::Spread(weights + q * kKeyTile + n);
          for (int c = 0; c < kColumns; ++c) totals[q][c] = Product::Multiply(left, right[c], totals[q][c]);
        }
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      add_alone(q, shared, seen[q]);
      for (int c = 0; c < kColumns; ++c) V::Store(sums + q * width + c * kLanes, totals[q][c]);
    }
  }

  // kQueries queries from number `first` on against one tile that begins at position `begin`.
  template <int kQueries, bool kPrefetch>
  static void AttendTile(const SegmentWork& work, const TilePointers<C>& tile, const TilePointers<C>& next,
                         int64_t begin, int64_t first) {
    alignas(64) float scores[kQueries * kKeyTile];
    alignas(64) Operand narrow[Product::kNarrow ? kQueries * kKeyTile : 1];
    alignas(64) float before[kMaxQueries] = {}, maxima[kMaxQueries] = {}, shrink[kMaxQueries];
    int64_t hidden[kQueries], seen[kQueries];  // of the tile, query q sees keys [hidden[q], seen[q])
    int64_t least = kKeyTile, most = 0;
    for (int q = 0; q < kQueries; ++q) {
      const int64_t visible = work.first_position + (first + q) / work.queries_per_row + 1;
      const int64_t from = visible - work.window - begin, to = (visible < work.end ? visible : work.end) - begin;
      hidden[q] = from < 0 ? 0 : from;
      seen[q] = to < kKeyTile ? to : kKeyTile;
      if (hidden[q] >= seen[q]) hidden[q] = seen[q] = 0;
      least = seen[q] > 0 && hidden[q] < least ? hidden[q] : least;
      most = seen[q] > most ? seen[q] : most;
    }
    if (most == 0) return;
    const Operand* queries = static_cast<const Operand*>(work.queries) + first * work.depth;
    constexpr int64_t kStep = V::kColumns * kLanes;
    for (int64_t column = least / kStep * kStep; column < most; column += kStep) {
      const C *keys[V::kColumns], *next_keys[V::kColumns];
      for (int c = 0; c < V::kColumns; ++c) {
        const int64_t lane = column + c * kLanes;
        keys[c] = tile.keys[lane / kKeyGroup] + lane % kKeyGroup * kPack;
        next_keys[c] = next.keys[lane / kKeyGroup] + lane % kKeyGroup * kPack;
      }
      Scores<kQueries, V::kColumns, kPrefetch>(queries, work.depth, keys, next_keys, tile.key_stride, scores + column);
    }

    for (int q = 0; q < kQueries; ++q) {
      float* row = scores + q * kKeyTile;
      const Vec scale = V::Spread(work.scale);
      before[q] = work.maxima[first + q];
      Vec largest = V::Spread(before[q]);
      for (int64_t n = 0; n < kKeyTile; n += kLanes) {
        Vec score = V::Spread(-std::numeric_limits<float>::infinity());
        if (n < seen[q] && n + kLanes > hidden[q]) {
          score = V::Multiply(V::Load(row + n), scale);
          if (n + kLanes > seen[q]) score = V::Mask(score, seen[q] - n);
          if (n < hidden[q]) score = V::MaskFirst(score, hidden[q] - n);
          largest = V::Max(largest, score);
        }
        V::Store(row + n, score);
      }
      maxima[q] = V::Largest(largest);
    }
    for (int64_t i = 0; i < kMaxQueries; i += kLanes) {
      V::Store(shrink + i, V::Exp2(V::Subtract(V::Load(before + i), V::Load(maxima + i))));
    }
    for (int q = 0; q < kQueries; ++q) {
      float* total = work.totals + (first + q) * kSumLanes;
      float* row = scores + q * kKeyTile;
      if (before[q] == maxima[q]) shrink[q] = 1;  // also -infinity, when nothing is seen
      const Vec maximum = V::Spread(maxima[q]), factor = V::Spread(shrink[q]);
      Vec added[kSumLanes / kLanes];
      for (int64_t i = 0; i < kSumLanes / kLanes; ++i) {
        added[i] = V::Multiply(V::Load(total + i * kLanes), factor);
      }
      for (int64_t n = hidden[q] / kSumLanes * kSumLanes; n < seen[q]; n += kSumLanes) {
        for (int64_t i = 0; i < kSumLanes / kLanes; ++i) {
          const Vec weight = V::Exp2(V::Subtract(V::Load(row + n + i * kLanes), maximum));
          added[i] = V::Add(added[i], weight);
          if constexpr (Product::kNarrow) {
            V::StoreNarrow(narrow + q * kKeyTile + n + i * kLanes, weight);
          } else {
            V::Store(row + n + i * kLanes, weight);
          }
        }
      }
      for (int64_t i = 0; i < kSumLanes / kLanes; ++i) V::Store(total + i * kLanes, added[i]);
      work.maxima[first + q] = maxima[q];
    }
    const Operand* weights;
    if constexpr (Product::kNarrow) {
      weights = narrow;
    } else {
      weights = scores;
    }
    float* sums = work.sums + first * work.width;
    int64_t column = 0;
    const C *values[kGroups], *next_values[kGroups];
    const auto locate = [&] {
      for (int64_t group = 0; group < kGroups; ++group) {
        values[group] = tile.values[group] + column * kPack;
        next_values[group] = next.values[group] + column * kPack;
      }
    };
    for (; column + kStep <= work.width; column += kStep) {
      locate();
      AddWeighted<kQueries, V::kColumns, kPrefetch>(weights, shrink, hidden, seen, values, next_values, work.width,
                                                    sums + column);
    }
    for (; column < work.width; column += kLanes) {
      locate();
      AddWeighted<kQueries, 1, kPrefetch>(weights, shrink, hidden, seen, values, next_values, work.width,
                                          sums + column);
    }
  }

  // The last work.count - first <= kQueries queries.
  template <int kQueries, bool kPrefetch>
  static TRIMTAB_INLINE void Rest(const SegmentWork& work, const TilePointers<C>& tile, const TilePointers<C>& next,
                                  int64_t begin, int64_t first) {
    if constexpr (kQueries > 0) {
      if (work.count - first == kQueries) return AttendTile<kQueries, kPrefetch>(work, tile, next, begin, first);
      Rest<kQueries - 1, kPrefetch>(work, tile, next, begin, first);
    }
  }

  static void Attend(const SegmentWork& work) {
    // What is read only once has to come from memory: the next tile is asked for meanwhile.
    const bool prefetch = work.count <= V::kQueries && work.block_size % kKeyGroup == 0;
    if (prefetch) {
      TilePointers<C> tile = Locate(work, work.begin);
      for (int64_t begin = work.begin; begin < work.end; begin += kKeyTile) {
        const TilePointers<C> next = begin + kKeyTile < work.end ? Locate(work, begin + kKeyTile)
                                     : work.next.keys != nullptr ? LocateNext(work)
                                                                 : tile;
        Rest<V::kQueries, true>(work, tile, next, begin, 0);
        tile = next;
      }
      return;
    }
    for (int64_t begin = work.begin; begin < work.end; begin += kKeyTile) {
      const TilePointers<C> tile = Locate(work, begin);
      int64_t first = 0;
      for (; first + V::kQueries <= work.count; first += V::kQueries) {
        AttendTile<V::kQueries, false>(work, tile, tile, begin, first);
      }
      Rest<V::kQueries - 1, false>(work, tile, tile, begin, first);
    }
  }
};

}  // namespace
}  // namespace trimtab

#endif  // TRIMTAB_MODELS_ATTENTION_TILE_KERNEL_IMPL_H_
