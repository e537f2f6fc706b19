// Runs token sequences through a paged cache the way the engine does, one step at a time, for tests.
#ifndef TRIMTAB_MODELS_TESTING_PAGED_RUN_H_
#define TRIMTAB_MODELS_TESTING_PAGED_RUN_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/attention/kv_cache.h"
#include "models/attention/paged_attention.h"
#include "models/causal_model.h"
#include "models/layer_tap.h"
#include "models/layers/workspace.h"

namespace trimtab {

// Sequences are numbered from 0 and grow as they are fed; their blocks are scattered over the cache.
class PagedRun {
 public:
  struct Chunk {
    int64_t sequence = 0;
    std::vector<int64_t> tokens;  // the next ones of that sequence
  };

  PagedRun(const CausalModel& model, int64_t num_blocks, int64_t block_size)
      : model_(model), cache_(model.spec(), num_blocks, block_size, model.dtype()), attention_(cache_) {}

  // One forward pass over all chunks: the residual stream [rows, hidden], rows in the order of the chunks. It lies in
  // memory that the next pass uses again.
  at::Tensor Forward(const std::vector<Chunk>& chunks, LayerTap& tap);
  // The same, then logits of all rows [rows, vocab], or of the last row of each chunk [chunks, vocab].
  at::Tensor Logits(const std::vector<Chunk>& chunks);
  at::Tensor LastLogits(const std::vector<Chunk>& chunks);

 private:
  struct Sequence {
    int64_t length = 0;
    std::vector<int32_t> blocks;
  };

  const CausalModel& model_;
  KvCache cache_;
  PagedAttention attention_;
  Workspace workspace_;
  std::vector<Sequence> sequences_;
  int64_t blocks_used_ = 0;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TESTING_PAGED_RUN_H_
