// How the rows of one packed forward pass belong together: activations are [num_tokens, hidden] for gradients and for
// serving alike, and this says which rows form a sequence, at which positions, and where their keys and values live.
#ifndef TRIMTAB_MODELS_TOKEN_LAYOUT_H_
#define TRIMTAB_MODELS_TOKEN_LAYOUT_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace trimtab {

// Consecutive rows of one sequence.
//
// Dense (gradients, capture): `context` is 0 and the rows are [shared prompt | branch 0 | branch 1 | ...]. A row sees
// the prompt rows up to itself and the rows of its own branch up to itself; each branch continues the prompt's
// positions (steering.md A2, packed evaluation). Without branches it is a plain causal sequence.
//
// Paged (serving): the rows are the next `length` tokens after `context` tokens whose keys and values are in the cache;
// `block_table` names the cache blocks that hold positions [0, context + length).
struct SequenceSpan {
  int64_t begin = 0;                 // first row
  int64_t length = 0;                // rows, branches included
  int64_t context = 0;               // cached tokens before the first row (paged only)
  std::vector<int64_t> branches;     // lengths of the branches after the prompt (dense only); they end the span
  std::vector<int32_t> block_table;  // (paged only)

  int64_t prompt_length() const {
    int64_t rows = length;
    for (int64_t branch : branches) rows -= branch;
    return rows;
  }
};

struct TokenLayout {
  int64_t num_tokens = 0;
  std::vector<SequenceSpan> sequences;  // in row order, covering all rows
  at::Tensor positions;                 // [num_tokens] int64, CPU: rotary position of each row
  at::Tensor slots;  // [num_tokens] int64, CPU: block * block_size + offset of the row's own K and V (paged)

  // Layout of independent dense sequences; fills begin and positions. Each span gives length and branches.
  static TokenLayout Dense(std::vector<SequenceSpan> spans);
  // Layout of paged sequences; fills begin, positions and slots from context, length and block_table.
  static TokenLayout Paged(std::vector<SequenceSpan> spans, int64_t block_size);
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKEN_LAYOUT_H_
