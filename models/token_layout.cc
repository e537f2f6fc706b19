#include "models/token_layout.h"

#include <ATen/ops/empty.h>

#include <utility>

namespace trimtab {

TokenLayout TokenLayout::Dense(std::vector<SequenceSpan> spans) {
  TokenLayout layout;
  for (SequenceSpan& span : spans) {
    span.begin = layout.num_tokens;
    layout.num_tokens += span.length;
  }
  layout.positions = at::empty({layout.num_tokens}, at::kLong);
  int64_t* positions = layout.positions.mutable_data_ptr<int64_t>();
  for (const SequenceSpan& span : spans) {
    const int64_t prompt = span.prompt_length();
    for (int64_t i = 0; i < prompt; ++i) *positions++ = i;
    for (int64_t branch : span.branches) {
      for (int64_t i = 0; i < branch; ++i) *positions++ = prompt + i;
    }
  }
  layout.sequences = std::move(spans);
  return layout;
}

TokenLayout TokenLayout::Paged(std::vector<SequenceSpan> spans, int64_t block_size) {
  TokenLayout layout;
  for (SequenceSpan& span : spans) {
    span.begin = layout.num_tokens;
    layout.num_tokens += span.length;
  }
  layout.positions = at::empty({layout.num_tokens}, at::kLong);
  layout.slots = at::empty({layout.num_tokens}, at::kLong);
  int64_t* positions = layout.positions.mutable_data_ptr<int64_t>();
  int64_t* slots = layout.slots.mutable_data_ptr<int64_t>();
  for (const SequenceSpan& span : spans) {
    for (int64_t i = span.context; i < span.context + span.length; ++i) {
      *positions++ = i;
      *slots++ = span.block_table.at(static_cast<size_t>(i / block_size)) * block_size + i % block_size;
    }
  }
  layout.sequences = std::move(spans);
  return layout;
}

}  // namespace trimtab
