#include "models/attention/dense_attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>

namespace trimtab {
namespace {

bool SameShape(const SequenceSpan& a, const SequenceSpan& b) {
  return a.length == b.length && a.branches == b.branches;
}

// Additive mask of [prompt | branch | branch ...]: 0 where a row may look, -inf elsewhere. `window` > 0.
at::Tensor Mask(int64_t length, const std::vector<int64_t>& branches, int64_t window, at::ScalarType dtype) {
  at::Tensor mask = at::full({length, length}, -std::numeric_limits<float>::infinity(), at::kFloat);
  float* cells = mask.mutable_data_ptr<float>();
  const auto allow = [&](int64_t row, int64_t from, int64_t to) {
    for (int64_t column = from; column < to; ++column) cells[row * length + column] = 0;
  };
  const int64_t prompt = length - std::accumulate(branches.begin(), branches.end(), int64_t{0});
  for (int64_t row = 0; row < prompt; ++row) allow(row, std::max<int64_t>(0, row + 1 - window), row + 1);
  int64_t begin = prompt;
  for (int64_t branch : branches) {
    for (int64_t i = 0; i < branch; ++i) {
      const int64_t first = prompt + i + 1 - window;  // position, of [prompt | branch]
      allow(begin + i, std::max<int64_t>(0, first), prompt);
      allow(begin + i, begin + std::max<int64_t>(0, first - prompt), begin + i + 1);
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
      int64_t longest = 0;
      for (const int64_t branch : span.branches) longest = std::max(longest, branch);
      runs_.push_back({span.begin, span.length, 1, span.branches, span.prompt_length() + longest, {}});
    }
    last = &span;
  }
  planned_ = layout.sequences;
  dtype_ = dtype;
}

const at::Tensor& DenseAttention::MaskOf(Run& run, int64_t window) const {
  if (window >= run.positions) window = 0;
  const auto [found, is_new] = run.masks.try_emplace(window);
  // One branch continues the prompt like any causal sequence.
  if (is_new && (window > 0 || run.branches.size() > 1)) {
    found->second = Mask(run.length, run.branches, window > 0 ? window : run.positions, dtype_);
  }
  return found->second;
}

at::Tensor DenseAttention::Attend(int64_t, const AttentionRule& rule, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const TokenLayout& layout) {
  if (!IsPlanned(layout, q.scalar_type())) Plan(layout, q.scalar_type());
  const bool grouped = q.size(1) != k.size(1);
  std::vector<at::Tensor> outputs;
  for (Run& run : runs_) {
    const auto batch = [&run](const at::Tensor& x) {  // [rows, H, d] -> [count, H, length, d]
      return x.narrow(0, run.begin, run.count * run.length).unflatten(0, {run.count, run.length}).transpose(1, 2);
    };
    const at::Tensor& mask = MaskOf(run, rule.window);
    const at::Tensor mixed = at::scaled_dot_product_attention(
        batch(q), batch(k), batch(v), mask.defined() ? std::optional(mask) : std::nullopt, /*dropout_p=*/0.0,
        /*is_causal=*/!mask.defined(), rule.scale, /*enable_gqa=*/grouped);
    outputs.push_back(mixed.transpose(1, 2).flatten(0, 1));  // [count * length, H, d]
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 0);
}

}  // namespace trimtab
