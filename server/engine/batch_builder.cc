#include "server/engine/batch_builder.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

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

}  // namespace

StepBatch BuildBatch(const StepPlan& plan, int64_t block_size) {
  StepBatch batch;
  const int64_t num_tokens = plan.num_tokens();
  batch.token_ids = at::empty({num_tokens}, at::kLong);
  int64_t* ids = batch.token_ids.data_ptr<int64_t>();
  batch.steering.entries.resize(num_tokens * kMaxSelections);
  std::vector<SequenceSpan> spans;
  spans.reserve(plan.items.size());
  int64_t row = 0;
  for (const StepItem& item : plan.items) {
    const Sequence& sequence = *item.sequence;
    SequenceSpan span;
    span.length = item.length;
    span.context = item.context;
    const int64_t blocks = (item.end() + block_size - 1) / block_size;
    span.block_table.assign(sequence.blocks.begin(), sequence.blocks.begin() + blocks);
    spans.push_back(std::move(span));
    std::copy(sequence.tokens.begin() + item.context, sequence.tokens.begin() + item.end(), ids + row);
    for (int64_t i = item.length - item.logits_rows(); i < item.length; ++i) batch.logits_rows.push_back(row + i);
    batch.steered_rows += FillSteering(item, batch.steering.entries.data() + row * kMaxSelections);
    row += item.length;
  }
  if (batch.steered_rows == 0) batch.steering.entries.clear();
  batch.layout = TokenLayout::Paged(std::move(spans), block_size);
  return batch;
}

}  // namespace trimtab
