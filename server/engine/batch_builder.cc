#include "server/engine/batch_builder.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace trimtab {
namespace {

// Fills the entries of one item's rows; returns how many of them are steered.
int64_t FillSteering(const StepItem& item, SteeringRows::Entry* rows) {
  const Request& request = *item.sequence->request;
  const std::vector<PlannedSteering>& planned = request.plan.entries();
  int64_t first_steered = item.end();
  for (size_t j = 0; j < planned.size(); ++j) {
    if (planned[j].strength == 0) continue;
    const int64_t from = std::max(item.context, planned[j].steer_from(request.prompt_length));
    first_steered = std::min(first_steered, from);
    for (int64_t position = from; position < item.end(); ++position) {
      rows[(position - item.context) * kMaxSelections + static_cast<int64_t>(j)] = {item.sequence->slots[j],
                                                                                    planned[j].strength};
    }
  }
  return item.end() - first_steered;
}

// [size] int64 with undefined contents, in the tensor's own memory if it has that size.
int64_t* Resize(at::Tensor& tensor, int64_t size) {
  if (!tensor.defined() || tensor.numel() != size) tensor = at::empty({size}, at::kLong);
  return tensor.mutable_data_ptr<int64_t>();
}

}  // namespace

const StepBatch& BatchBuilder::Build(const StepPlan& plan) {
  TokenLayout& layout = batch_.layout;
  layout.num_tokens = plan.num_tokens();
  layout.sequences.resize(plan.items.size());
  int64_t* ids = Resize(batch_.token_ids, layout.num_tokens);
  int64_t* positions = Resize(layout.positions, layout.num_tokens);
  int64_t* slots = Resize(layout.slots, layout.num_tokens);
  batch_.logits_rows.clear();
  batch_.steered_rows = 0;
  batch_.steering.entries.assign(static_cast<size_t>(layout.num_tokens * kMaxSelections), {});
  int64_t row = 0;
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const StepItem& item = plan.items[i];
    const Sequence& sequence = *item.sequence;
    SequenceSpan& span = layout.sequences[i];
    span.begin = row;
    span.length = item.length;
    span.context = item.context;
    const int64_t blocks = (item.end() + block_size_ - 1) / block_size_;
    span.block_table.assign(sequence.blocks.begin(), sequence.blocks.begin() + blocks);
    ids = std::copy(sequence.tokens.begin() + item.context, sequence.tokens.begin() + item.end(), ids);
    for (int64_t position = item.context; position < item.end(); ++position) {
      *positions++ = position;
      *slots++ = sequence.blocks[static_cast<size_t>(position / block_size_)] * block_size_ + position % block_size_;
    }
    for (int64_t j = item.length - item.logits_rows(); j < item.length; ++j) batch_.logits_rows.push_back(row + j);
    batch_.steered_rows += FillSteering(item, batch_.steering.entries.data() + row * kMaxSelections);
    row += item.length;
  }
  if (batch_.steered_rows == 0) batch_.steering.entries.clear();
  return batch_;
}

}  // namespace trimtab
