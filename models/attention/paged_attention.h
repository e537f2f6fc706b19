// Attention of serving: keys and values live in cache blocks, shared between sequences. CPU, float32 and bfloat16.
#ifndef TRIMTAB_MODELS_ATTENTION_PAGED_ATTENTION_H_
#define TRIMTAB_MODELS_ATTENTION_PAGED_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/attention/attention_backend.h"
#include "models/attention/kv_cache.h"
#include "models/attention/tile_kernel.h"

namespace trimtab {

// Writes the rows' K and V into their slots, then lets each row see the cached positions of its sequence up to its own,
// those of the layer's window or all; what lies behind the window is not read.
// Softmax and sums in float32; with a bfloat16 cache, queries and softmax weights are rounded to bfloat16 where the
// processor multiplies that. A row's result does not depend on what else is in the step, on the chunk that it came in
// or on the number of threads. Not differentiable. One forward pass at a time, on the thread that owns the cache; the
// work is shared out with ParallelTasks.
class PagedAttention final : public AttentionBackend {
 public:
  explicit PagedAttention(KvCache& cache, InstructionSet instructions = BestInstructionSet());

  at::Tensor Attend(int64_t layer, const AttentionRule& rule, const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& v, const TokenLayout& layout) override;
  void AttendRotated(int64_t layer, const AttentionRule& rule, const at::Tensor& qkv, const at::Tensor& cos,
                     const at::Tensor& sin, const TokenLayout& layout, at::Tensor& out) override;

 private:
  struct Call;  // what all tasks of a call share

  // A tile of rows of one sequence and one key head, with all query heads of that key head.
  struct Tile {
    const SequenceSpan* span;
    int64_t first, count;  // rows of the span
    int64_t kv_head;
    int64_t begin, end;  // segments that some row sees
    int64_t partials;    // where the segments' softmaxes are kept, in floats; -1: one task does the tile
  };
  // Segments [begin, end) of a tile.
  struct Task {
    size_t tile;
    int64_t begin, end;
  };

  void Run(Call call, const TokenLayout& layout);
  // Keys and values of one row and head go into the cache.
  void WriteRow(const Call& call, int64_t row, int64_t head) const;
  void WriteCache(const Call& call, const TokenLayout& layout) const;
  // Fills tiles_ and tasks_; false: too little work for a second thread.
  bool Plan(const Call& call, const TokenLayout& layout);
  void RunTask(const Call& call, size_t number);
  void FinishSplitTile(const Call& call, const Tile& tile);

  KvCache& cache_;
  const TileKernel kernel_;
  // Of the call in progress; kept for their memory.
  std::vector<Tile> tiles_;
  std::vector<Task> tasks_;
  std::vector<float> partials_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_ATTENTION_PAGED_ATTENTION_H_
