#include "steering/token_tree.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <limits>

namespace trimtab {

TokenForest::Place TokenForest::Add(const Place& place, const at::Tensor& embeddings) {
  const int64_t length = embeddings.size(0);
  if (length == 0) return place;
  Segment segment{.parent = place, .begin = num_rows_, .length = length};
  const int64_t index = static_cast<int64_t>(segments_.size());
  if (place.segment < 0) {
    segment.root = static_cast<int64_t>(roots_.size());
    roots_.push_back(index);
  } else {
    const Segment& parent = segments_[place.segment];
    TORCH_CHECK(parent.root + 1 == static_cast<int64_t>(roots_.size()), "segments of an earlier tree");
    segment.root = parent.root;
    segment.position = parent.position + place.rows;
  }
  segments_.push_back(segment);
  embeddings_.push_back(embeddings);
  num_rows_ += length;
  return {index, length};
}

at::Tensor TokenForest::Embeddings() const { return at::cat(embeddings_); }

TokenLayout TokenForest::Layout() const {
  TokenLayout layout;
  layout.num_tokens = num_rows_;
  std::vector<at::Tensor> positions;
  for (size_t root = 0; root < roots_.size(); ++root) {
    const int64_t begin = segments_[roots_[root]].begin;
    const int64_t end = root + 1 < roots_.size() ? segments_[roots_[root + 1]].begin : num_rows_;
    layout.sequences.push_back({.begin = begin, .length = end - begin});
  }
  for (const Segment& segment : segments_) {
    positions.push_back(at::arange(segment.position, segment.position + segment.length, at::kLong));
  }
  layout.positions = at::cat(positions);
  return layout;
}

at::Tensor TokenForest::Visible(int64_t root) const {
  const int64_t first = segments_[roots_[root]].begin;
  const int64_t end = root + 1 < static_cast<int64_t>(roots_.size()) ? segments_[roots_[root + 1]].begin : num_rows_;
  at::Tensor visible = at::zeros({end - first, end - first}, at::kBool);
  bool* data = visible.data_ptr<bool>();
  for (int64_t s = roots_[root]; s < static_cast<int64_t>(segments_.size()) && segments_[s].root == root; ++s) {
    const Segment& segment = segments_[s];
    for (int64_t i = 0; i < segment.length; ++i) {
      bool* row = data + (segment.begin - first + i) * (end - first);
      const int64_t own = segment.begin - first;
      for (int64_t j = 0; j <= i; ++j) row[own + j] = true;
      for (Place place = segment.parent; place.segment >= 0; place = segments_[place.segment].parent) {
        const int64_t begin = segments_[place.segment].begin - first;
        for (int64_t j = 0; j < place.rows; ++j) row[begin + j] = true;
      }
    }
  }
  return visible;
}

TreeAttention::TreeAttention(const TokenForest& forest, at::ScalarType dtype) {
  for (size_t root = 0; root < forest.roots_.size(); ++root) {
    const at::Tensor visible = forest.Visible(static_cast<int64_t>(root));
    bias_.push_back(
        at::zeros(visible.sizes(), dtype).masked_fill_(visible.logical_not(), -std::numeric_limits<float>::infinity()));
  }
}

at::Tensor TreeAttention::Attend(int64_t, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const TokenLayout& layout) {
  const int64_t heads = q.size(1), kv_heads = k.size(1), head_dim = q.size(2), group = heads / kv_heads;
  std::vector<at::Tensor> outputs;
  for (size_t tree = 0; tree < layout.sequences.size(); ++tree) {
    const int64_t begin = layout.sequences[tree].begin, rows = layout.sequences[tree].length;
    // [kv_heads, group, rows, head_dim]; a group's queries share keys and values without copies.
    const at::Tensor queries =
        q.narrow(0, begin, rows).reshape({rows, kv_heads, group, head_dim}).permute({1, 2, 0, 3});
    const at::Tensor keys =
        k.narrow(0, begin, rows).permute({1, 0, 2}).unsqueeze(1).expand({kv_heads, group, rows, head_dim});
    const at::Tensor values =
        v.narrow(0, begin, rows).permute({1, 0, 2}).unsqueeze(1).expand({kv_heads, group, rows, head_dim});
    const at::Tensor mixed =
        at::scaled_dot_product_attention(queries, keys, values, bias_[tree].view({1, 1, rows, rows}));
    outputs.push_back(mixed.permute({2, 0, 1, 3}).reshape({rows, heads, head_dim}));
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs);
}

}  // namespace trimtab
