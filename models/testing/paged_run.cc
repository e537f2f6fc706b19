#include "models/testing/paged_run.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <utility>

namespace trimtab {

at::Tensor PagedRun::Forward(const std::vector<Chunk>& chunks, LayerTap& tap) {
  const at::NoGradGuard no_grad;
  std::vector<SequenceSpan> spans;
  std::vector<int64_t> tokens;
  for (const Chunk& chunk : chunks) {
    if (chunk.sequence >= static_cast<int64_t>(sequences_.size())) {
      sequences_.resize(static_cast<size_t>(chunk.sequence + 1));
    }
    Sequence& sequence = sequences_[static_cast<size_t>(chunk.sequence)];
    const int64_t length = static_cast<int64_t>(chunk.tokens.size());
    while (static_cast<int64_t>(sequence.blocks.size()) * cache_.block_size() < sequence.length + length) {
      TORCH_CHECK(blocks_used_ < cache_.num_blocks(), "the test's cache is too small");
      // Every second block first, so that neighbours in a sequence are not neighbours in the cache.
      const int64_t half = (cache_.num_blocks() + 1) / 2, i = blocks_used_++;
      sequence.blocks.push_back(static_cast<int32_t>(i < half ? 2 * i : 2 * (i - half) + 1));
    }
    SequenceSpan span;
    span.length = length;
    span.context = sequence.length;
    span.block_table = sequence.blocks;
    spans.push_back(std::move(span));
    sequence.length += length;
    tokens.insert(tokens.end(), chunk.tokens.begin(), chunk.tokens.end());
  }
  const TokenLayout layout = TokenLayout::Paged(std::move(spans), cache_.block_size());
  return model_.Forward(model_.Embed(at::tensor(tokens)),
                        {.layout = layout, .attention = attention_, .tap = tap, .workspace = &workspace_});
}

at::Tensor PagedRun::Logits(const std::vector<Chunk>& chunks) {
  IdentityTap tap;
  const at::NoGradGuard no_grad;
  return model_.Logits(Forward(chunks, tap));
}

at::Tensor PagedRun::LastLogits(const std::vector<Chunk>& chunks) {
  IdentityTap tap;
  const at::NoGradGuard no_grad;
  std::vector<int64_t> rows;
  int64_t end = 0;
  for (const Chunk& chunk : chunks) rows.push_back((end += static_cast<int64_t>(chunk.tokens.size())) - 1);
  return model_.Logits(at::index_select(Forward(chunks, tap), 0, at::tensor(rows)));
}

}  // namespace trimtab
