#include "models/attention/dense_attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>
#include <limits>
#include <optional>

namespace trimtab {
namespace {

bool SameShape(const SequenceSpan& a, const SequenceSpan& b) {
  return a.length == b.length && a.branches == b.branches;
}

// Additive mask of [prompt | branch | branch ...]: 0 where a row may look, -inf elsewhere.
at::Tensor BranchMask(const SequenceSpan& span, at::ScalarType dtype) {
  at::Tensor mask = at::full({span.length, span.length}, -std::numeric_limits<float>::infinity(), at::kFloat);
  float* cells = mask.mutable_data_ptr<float>();
  const int64_t prompt = span.prompt_length();
  const auto allow = [&](int64_t row, int64_t from, int64_t to) {
    for (int64_t column = from; column < to; ++column) cells[row * span.length + column] = 0;
  };
  for (int64_t row = 0; row < prompt; ++row) allow(row, 0, row + 1);
  int64_t begin = prompt;
  for (int64_t branch : span.branches) {
    for (int64_t row = begin; row < begin + branch; ++row) {
      allow(row, 0, prompt);
      allow(row, begin, row + 1);
    }
    begin += branch;
  }
  return mask.to(dtype);
}

}  // namespace

bool DenseAttention::IsPlanned(const TokenLayout& layout, at::ScalarType dtype) const {
  return dtype == dtype_ &&
         std::equal(layout.sequences.begin(), layout.sequences.end(), planned_.begin(), planned_.end(), SameShape);
}

void DenseAttention::Plan(const TokenLayout& layout, at::ScalarType dtype) {
  runs_.clear();
  const SequenceSpan* last = nullptr;
  for (const SequenceSpan& span : layout.sequences) {
    if (span.length == 0) continue;
    if (last != nullptr && SameShape(*last, span)) {
      ++runs_.back().count;
    } else {
      runs_.push_back({span.begin, span.length, 1, {}});
      // One branch continues the prompt like any causal sequence.
      if (span.branches.size() > 1) runs_.back().mask = BranchMask(span, dtype);
    }
    last = &span;
  }
  planned_ = layout.sequences;
  dtype_ = dtype;
}

at::Tensor DenseAttention::Attend(int64_t, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const TokenLayout& layout) {
  if (!IsPlanned(layout, q.scalar_type())) Plan(layout, q.scalar_type());
  const bool grouped = q.size(1) != k.size(1);
  std::vector<at::Tensor> outputs;
  for (const Run& run : runs_) {
    const auto batch = [&run](const at::Tensor& x) {  // [rows, H, d] -> [count, H, length, d]
      return x.narrow(0, run.begin, run.count * run.length).unflatten(0, {run.count, run.length}).transpose(1, 2);
    };
    const at::Tensor mixed = at::scaled_dot_product_attention(
        batch(q), batch(k), batch(v), run.mask.defined() ? std::optional(run.mask) : std::nullopt, /*dropout_p=*/0.0,
        /*is_causal=*/!run.mask.defined(), std::nullopt, /*enable_gqa=*/grouped);
    outputs.push_back(mixed.transpose(1, 2).flatten(0, 1));  // [count * length, H, d]
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 0);
}

}  // namespace trimtab
