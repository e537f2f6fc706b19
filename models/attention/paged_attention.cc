#include "models/attention/paged_attention.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "models/attention/head_row.h"
#include "models/kernels/thread_team.h"

namespace trimtab {
namespace {

constexpr int64_t kTileQueries = 48;  // rows x heads of a tile, about
constexpr int64_t kSegment = 256;     // positions whose softmax is kept apart, a multiple of kKeyTile
constexpr int64_t kWriteRows = 16;    // rows that one task writes to the cache
// Multiplications of the least work that pays for a second thread, and of the least that is worth a task.
constexpr int64_t kThreadGrain = int64_t{1} << 17, kTaskGrain = int64_t{1} << 15;
constexpr int64_t kTasksPerThread = 4;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct alignas(64) Line {
  float values[16];
};

// Memory that keeps its largest size.
class Buffer {
 public:
  template <typename T>
  T* Take(int64_t count) {
    const size_t lines = (static_cast<size_t>(count) * sizeof(T) + sizeof(Line) - 1) / sizeof(Line);
    if (lines_.size() < lines) lines_.resize(lines);
    return reinterpret_cast<T*>(lines_.data());
  }

 private:
  std::vector<Line> lines_;
};

// Of one thread.
struct Scratch {
  Buffer row, queries, gathered, segment, whole;
};

Scratch& ThreadScratch() {
  thread_local Scratch scratch;
  return scratch;
}

// The softmax of some queries in progress, over one segment or more.
struct Softmax {
  float* maxima;  // [count]
  float* totals;  // [count, kSumLanes]
  float* sums;    // [count, width]

  static int64_t Size(int64_t count, int64_t width) { return count * (1 + kSumLanes + width); }
  // In memory of Size floats; the sums come first, aligned as it is.
  static Softmax In(float* memory, int64_t count, int64_t width) {
    return {memory + count * (width + kSumLanes), memory + count * width, memory};
  }
  void Clear(int64_t count, int64_t width) const {
    std::fill_n(maxima, count, kMinusInfinity);
    std::fill_n(totals, count * kSumLanes, 0.0f);
    std::fill_n(sums, count * width, 0.0f);
  }
};

// Adds the softmax of one segment of query `i` to that of the segments before it.
void Merge(const Softmax& segment, int64_t i, int64_t width, const Softmax& whole) {
  if (segment.maxima[i] == kMinusInfinity) return;  // behind the query's window
  const float maximum = std::max(whole.maxima[i], segment.maxima[i]);
  const float left = std::exp2(whole.maxima[i] - maximum), right = std::exp2(segment.maxima[i] - maximum);
  whole.maxima[i] = maximum;
  const auto add = [&](const float* from, int64_t count, float* to) {
    for (int64_t j = 0; j < count; j += kLanes) Store8(to + j, Load8(to + j) * left + Load8(from + j) * right);
  };
  add(segment.totals + i * kSumLanes, kSumLanes, whole.totals + i * kSumLanes);
  add(segment.sums + i * width, width, whole.sums + i * width);
}

bool IsNarrow(const at::Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16,
              "paged attention takes float32 and bfloat16, not ", x.scalar_type());
  return x.scalar_type() == at::kBFloat16;
}

// Heads of x [rows, heads, d] from number `head` on.
HeadRows RowsOf(const at::Tensor& x, int64_t head = 0) {
  TORCH_CHECK(x.stride(2) == 1, "paged attention: queries, keys and values must be dense in their last dimension");
  const char* data = static_cast<const char*>(x.const_data_ptr());
  return {data + head * x.stride(1) * static_cast<int64_t>(x.element_size()), IsNarrow(x), x.stride(0), x.stride(1)};
}

}  // namespace

struct PagedAttention::Call {
  HeadRows q, k, v;
  const float *cos, *sin;  // [rows, d / 2]; null: rotated already
  int64_t heads, d;
  const int64_t* slots;  // [rows]
  void* out;             // [rows, heads, d]
  bool narrow_out;
  // Each sequence has one row, which nobody else reads: the task that attends over a head's last segment writes the
  // row's keys and values first.
  bool tasks_write;
  const KvCacheLayer& cache;
  const AttentionRule& rule;

  // The first position that a row at `position` sees.
  int64_t first_visible(int64_t position) const {
    return rule.window > 0 ? std::max<int64_t>(0, position + 1 - rule.window) : 0;
  }
  int64_t group() const { return heads / cache.kv_heads; }
  void LoadRotated(const HeadRows& rows, int64_t row, int64_t head, float* to) const {
    LoadHead(rows, row, head, d, to);
    if (cos != nullptr) RotateHalves(cos + row * (d / 2), sin + row * (d / 2), d / 2, to);
  }
  // Adds the softmax of one segment to that of the segments before it, for the rows that see the segment.
  void MergeSegment(const Tile& tile, int64_t segment, const Softmax& part, const Softmax& whole) const {
    const int64_t first = std::max<int64_t>(0, segment * kSegment - tile.span->context - tile.first);  // row
    for (int64_t i = first * group(); i < tile.count * group(); ++i) Merge(part, i, cache.width, whole);
  }
  void StoreTile(const Tile& tile, const Softmax& whole) const {
    for (int64_t i = 0; i < tile.count * group(); ++i) {
      Store(whole, i, tile.span->begin + tile.first + i / group(), tile.kv_head * group() + i % group());
    }
  }
  // out = sums / total of one query.
  void Store(const Softmax& softmax, int64_t i, int64_t row, int64_t head) const {
    const float* totals = softmax.totals + i * kSumLanes;
    const float inverse = 1.0f / Sum8(Load8(totals) + Load8(totals + kLanes));
    const float* sums = softmax.sums + i * cache.width;
    const int64_t at = (row * heads + head) * d;
    if (narrow_out) {
      ConvertRow(sums, d, inverse, static_cast<c10::BFloat16*>(out) + at);
    } else {
      ConvertRow(sums, d, inverse, static_cast<float*>(out) + at);
    }
  }
};

PagedAttention::PagedAttention(KvCache& cache, InstructionSet instructions)
    : cache_(cache),
      kernel_(
          (instructions == InstructionSet::kAvx512 ? avx512::Kernel : avx2::Kernel)(cache.dtype() == at::kBFloat16)) {}

void PagedAttention::WriteRow(const Call& call, int64_t row, int64_t head) const {
  float* key = ThreadScratch().row.Take<float>(2 * call.d);
  float* value = key + call.d;
  call.LoadRotated(call.k, row, head, key);
  LoadHead(call.v, row, head, call.d, value);
  call.cache.Write(call.slots[row], head, key, value);
}

void PagedAttention::WriteCache(const Call& call, const TokenLayout& layout) const {
  const int64_t rows = layout.num_tokens, kv_heads = call.cache.kv_heads;
  const auto write = [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t head = 0; head < kv_heads; ++head) WriteRow(call, row, head);
    }
  };
  // About as slow as that many multiplications.
  if (rows < 2 * kWriteRows || rows * kv_heads * call.d * 16 < kThreadGrain || ParallelThreads() == 1) {
    return write(0, rows);
  }
  ParallelTasks(CeilDivide(rows, kWriteRows),
                [&](int64_t task) { write(task * kWriteRows, std::min(rows, (task + 1) * kWriteRows)); });
}

// Shares the work out. What belongs together in one result does not depend on it: only who computes what, and when.
bool PagedAttention::Plan(const Call& call, const TokenLayout& layout) {
  tiles_.clear();
  tasks_.clear();
  const int64_t group = call.group(), tile_rows = std::max<int64_t>(1, kTileQueries / group);
  const auto work = [&](int64_t rows, int64_t keys) { return 2 * rows * group * keys * call.d; };
  // What `count` rows from position `first` on see together.
  const auto visible = [&](int64_t first, int64_t count) { return first + count - call.first_visible(first); };
  int64_t total = 0;
  for (const SequenceSpan& span : layout.sequences) {
    total += call.cache.kv_heads * work(span.length, visible(span.context, span.length));
  }
  const int64_t threads = total < kThreadGrain ? 1 : ParallelThreads();
  const int64_t grain = std::max(kTaskGrain, total / (kTasksPerThread * threads));
  int64_t partials = 0;
  for (const SequenceSpan& span : layout.sequences) {
    for (int64_t head = 0; head < call.cache.kv_heads; ++head) {
      // The last rows of a chunk see most: first things first, so that threads finish together.
      for (int64_t first = (span.length - 1) / tile_rows * tile_rows; first >= 0; first -= tile_rows) {
        const int64_t count = std::min(tile_rows, span.length - first), position = span.context + first;
        Tile tile{&span,
                  first,
                  count,
                  head,
                  call.first_visible(position) / kSegment,
                  CeilDivide(position + count, kSegment),
                  /*partials=*/-1};
        const int64_t segments = tile.end - tile.begin;
        const int64_t pieces =
            threads == 1 ? 1 : std::min(segments, CeilDivide(work(count, visible(position, count)), grain));
        if (pieces > 1) {
          tile.partials = partials;
          partials += segments * Softmax::Size(count * group, call.cache.width);
        }
        for (int64_t i = 0; i < pieces; ++i) {
          tasks_.push_back(
              {tiles_.size(), tile.begin + i * segments / pieces, tile.begin + (i + 1) * segments / pieces});
        }
        tiles_.push_back(tile);
      }
    }
  }
  if (static_cast<int64_t>(partials_.size()) < partials) partials_.resize(static_cast<size_t>(partials));
  return threads > 1;
}

void PagedAttention::RunTask(const Call& call, size_t number) {
  const Task& task = tasks_[number];
  const Tile& tile = tiles_[task.tile];
  const SequenceSpan& span = *tile.span;
  const KvCacheLayer& cache = call.cache;
  const int64_t group = call.group(), count = tile.count * group, width = cache.width;
  Scratch& scratch = ThreadScratch();
  const size_t element = cache.narrow ? sizeof(c10::BFloat16) : sizeof(float);

  if (call.tasks_write && task.end == tile.end) WriteRow(call, span.begin, tile.kv_head);
  float* row = scratch.row.Take<float>(cache.depth);
  std::fill(row + call.d, row + cache.depth, 0.0f);
  void* queries = scratch.queries.Take<float>(count * cache.depth);
  for (int64_t i = 0; i < count; ++i) {
    call.LoadRotated(call.q, span.begin + tile.first + i / group, tile.kv_head * group + i % group, row);
    if (kernel_.narrow_queries) {
      ConvertRow(row, cache.depth, 1, static_cast<c10::BFloat16*>(queries) + i * cache.depth);
    } else {
      ConvertRow(row, cache.depth, 1, static_cast<float*>(queries) + i * cache.depth);
    }
  }

  const int64_t size = Softmax::Size(count, width);
  const Softmax whole = Softmax::In(scratch.whole.Take<float>(size), count, width);
  SegmentWork work{.keys = static_cast<const char*>(cache.keys) + tile.kv_head * cache.key_size() * element,
                   .values = static_cast<const char*>(cache.values) + tile.kv_head * cache.value_size() * element,
                   .key_stride = cache.kv_heads * cache.key_size(),
                   .value_stride = cache.kv_heads * cache.value_size(),
                   .block_table = span.block_table.data(),
                   .block_size = cache.block_size,
                   .block_slots = cache.slots,
                   .depth = cache.depth,
                   .width = width,
                   .queries = queries,
                   .count = count,
                   .queries_per_row = group,
                   .first_position = span.context + tile.first,
                   .window = call.rule.window > 0 ? call.rule.window : std::numeric_limits<int64_t>::max() / 2,
                   .scale = static_cast<float>(std::numbers::log2e * call.rule.scale),
                   .next = {},
                   .gathered = nullptr};
  if (cache.block_size % kKeyGroup != 0) {
    work.gathered = scratch.gathered.Take<float>(kKeyTile * (cache.depth + width));
  }
  const int64_t first_tile = call.first_visible(work.first_position) / kKeyTile * kKeyTile;
  for (int64_t segment = task.begin; segment < task.end; ++segment) {
    Softmax part = whole;
    if (tile.partials >= 0) {
      part = Softmax::In(partials_.data() + tile.partials + (segment - tile.begin) * size, count, width);
    } else if (segment > tile.begin) {
      part = Softmax::In(scratch.segment.Take<float>(size), count, width);
    }
    part.Clear(count, width);
    work.begin = std::max(segment * kSegment, first_tile);
    work.end = std::min((segment + 1) * kSegment, work.first_position + tile.count);
    work.maxima = part.maxima;
    work.totals = part.totals;
    work.sums = part.sums;
    if (segment + 1 == task.end && number + 1 < tasks_.size()) {
      const Task& after = tasks_[number + 1];
      const Tile& other = tiles_[after.tile];
      const int64_t position = other.span->context + other.first, begin = after.begin * kSegment;
      work.next = {.keys = static_cast<const char*>(cache.keys) + other.kv_head * cache.key_size() * element,
                   .values = static_cast<const char*>(cache.values) + other.kv_head * cache.value_size() * element,
                   .block_table = other.span->block_table.data(),
                   .begin = std::max(begin, call.first_visible(position) / kKeyTile * kKeyTile),
                   .end = std::min(begin + kSegment, position + other.count)};
    }
    kernel_.attend(work);
    if (tile.partials < 0 && segment > tile.begin) call.MergeSegment(tile, segment, part, whole);
  }
  if (tile.partials < 0) call.StoreTile(tile, whole);
}

void PagedAttention::FinishSplitTile(const Call& call, const Tile& tile) {
  const int64_t count = tile.count * call.group(), width = call.cache.width, size = Softmax::Size(count, width);
  float* memory = partials_.data() + tile.partials;
  const Softmax whole = Softmax::In(memory, count, width);
  for (int64_t segment = tile.begin + 1; segment < tile.end; ++segment) {
    call.MergeSegment(tile, segment, Softmax::In(memory + (segment - tile.begin) * size, count, width), whole);
  }
  call.StoreTile(tile, whole);
}

void PagedAttention::Run(Call call, const TokenLayout& layout) {
  call.slots = layout.slots.const_data_ptr<int64_t>();
  call.tasks_write = std::all_of(layout.sequences.begin(), layout.sequences.end(),
                                 [](const SequenceSpan& span) { return span.length == 1; });
  TORCH_CHECK(call.d == call.cache.head_dim && call.heads % call.cache.kv_heads == 0,
              "paged attention: queries and cache do not fit together");
  if (!call.tasks_write) WriteCache(call, layout);
  if (Plan(call, layout)) {
    ParallelTasks(static_cast<int64_t>(tasks_.size()), [&](int64_t task) { RunTask(call, static_cast<size_t>(task)); });
  } else {
    for (size_t task = 0; task < tasks_.size(); ++task) RunTask(call, task);
  }
  for (const Tile& tile : tiles_) {
    if (tile.partials >= 0) FinishSplitTile(call, tile);
  }
}

at::Tensor PagedAttention::Attend(int64_t layer, const AttentionRule& rule, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const TokenLayout& layout) {
  const KvCacheLayer& cache = cache_.layer(layer);
  TORCH_CHECK(k.size(1) == cache.kv_heads && v.size(1) == cache.kv_heads, "paged attention: keys do not fit the cache");
  at::Tensor out = at::empty({q.size(0), q.size(1), q.size(2)}, q.options());
  Run({.q = RowsOf(q),
       .k = RowsOf(k),
       .v = RowsOf(v),
       .cos = nullptr,
       .sin = nullptr,
       .heads = q.size(1),
       .d = q.size(2),
       .slots = nullptr,
       .out = out.mutable_data_ptr(),
       .narrow_out = IsNarrow(out),
       .tasks_write = false,
       .cache = cache,
       .rule = rule},
      layout);
  return out;
}

void PagedAttention::AttendRotated(int64_t layer, const AttentionRule& rule, const at::Tensor& qkv,
                                   const at::Tensor& cos, const at::Tensor& sin, const TokenLayout& layout,
                                   at::Tensor& out) {
  const KvCacheLayer& cache = cache_.layer(layer);
  const int64_t rows = qkv.size(0), heads = out.size(1), d = qkv.size(2);
  TORCH_CHECK(qkv.size(1) == heads + 2 * cache.kv_heads && out.is_contiguous() && out.size(0) == rows &&
                  out.size(2) == d && cos.is_contiguous() && sin.is_contiguous() && cos.numel() == rows * (d / 2) &&
                  sin.numel() == rows * (d / 2),
              "paged attention: projections, angles, cache and result do not fit together");
  Run({.q = RowsOf(qkv),
       .k = RowsOf(qkv, heads),
       .v = RowsOf(qkv, heads + cache.kv_heads),
       .cos = cos.const_data_ptr<float>(),
       .sin = sin.const_data_ptr<float>(),
       .heads = heads,
       .d = d,
       .slots = nullptr,
       .out = out.mutable_data_ptr(),
       .narrow_out = IsNarrow(out),
       .tasks_write = false,
       .cache = cache,
       .rule = rule},
      layout);
}

}  // namespace trimtab
