// The inner part of paged attention, compiled once per instruction set: a few queries against one segment of a
// sequence's cached keys and values. Called by PagedAttention from any thread; no torch.
#ifndef TRIMTAB_MODELS_ATTENTION_TILE_KERNEL_H_
#define TRIMTAB_MODELS_ATTENTION_TILE_KERNEL_H_

#include <cstdint>

namespace trimtab {

constexpr int64_t kKeyTile = 64;     // keys whose scores are held at a time
constexpr int64_t kKeyGroup = 16;    // slots that a kernel reads without asking for the next block
constexpr int64_t kSumLanes = 16;    // partial sums of a softmax total
constexpr int64_t kMaxQueries = 16;  // more than a kernel holds in registers, whole vectors

// Layer and head of the cache (see KvCache for the layout), a sequence's blocks in it, the queries and their running
// softmax (Milakov and Gimelshein 2018). Queries of a row stand side by side; the rows are consecutive positions.
struct SegmentWork {
  const void *keys, *values;         // first block's part of the key head
  int64_t key_stride, value_stride;  // elements from a block to the next
  const int32_t* block_table;
  int64_t block_size;   // positions in a block
  int64_t block_slots;  // slots in a block
  int64_t depth;        // elements of a key and of a query: head_dim, zeros behind
  int64_t width;        // elements of a value and of a sum: head_dim, zeros behind

  const void* queries;      // [count, depth]: bfloat16 if the kernel says so, else float
  int64_t count;            // queries
  int64_t queries_per_row;  // query heads of the key head
  int64_t first_position;   // of the first row: it sees the `window` positions up to this one
  int64_t window;           // of a row, its own position included; at least the context where there is no limit
  float scale;              // of the scores, for powers of two: log2(e) times the model's

  int64_t begin, end;  // positions to attend to, begin a multiple of kKeyTile
  float* maxima;       // [count], of the scaled scores; -infinity at first
  float* totals;       // [count, kSumLanes]
  float* sums;         // [count, width]

  // What the thread most likely attends to next (keys null: unknown): its first tile is asked for during the last one.
  struct {
    const void *keys, *values;
    const int32_t* block_table;
    int64_t begin, end;
  } next;

  void* gathered;  // room for 2 * kKeyTile * max(depth, width) elements of the cache
};

// One instruction set's kernel for one type of cache.
struct TileKernel {
  // Adds the keys of [begin, end) that each query sees to its running softmax. A query's result depends only on the
  // query, its position and what it sees, bit for bit.
  void (*attend)(const SegmentWork& work);
  bool narrow_queries;  // takes queries in bfloat16
};

enum class InstructionSet { kAvx2, kAvx512 };
// The best that this processor has.
InstructionSet BestInstructionSet();

namespace avx2 {
TileKernel Kernel(bool narrow_cache);
}
namespace avx512 {
TileKernel Kernel(bool narrow_cache);  // with bfloat16 products
}

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_ATTENTION_TILE_KERNEL_H_
