#include "steering/token_tree.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <unordered_map>
#include <utility>

namespace trimtab {
namespace {

constexpr size_t kMaxPadding = 2;  // cells of a batch's masks over those of its units

}  // namespace

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

std::vector<TreeAttention::Unit> TreeAttention::Units(const TokenForest& forest) {
  using Segment = TokenForest::Segment;
  const std::vector<Segment>& segments = forest.segments_;
  std::vector<Unit> units;
  std::vector<size_t> unit_of(segments.size());
  std::vector<std::vector<size_t>> members;  // segments of each unit
  for (size_t s = 0; s < segments.size(); ++s) {
    const int64_t parent = segments[s].parent.segment;
    // A root and its direct continuations begin units.
    if (parent < 0 || segments[parent].parent.segment < 0) {
      unit_of[s] = members.size();
      members.push_back({s});
    } else {
      unit_of[s] = unit_of[parent];
      members[unit_of[s]].push_back(s);
    }
  }
  for (const std::vector<size_t>& own : members) {
    Unit unit;
    std::unordered_map<int64_t, size_t> column;  // of a row among the keys
    const Segment& first = segments[own.front()];
    const auto add_key = [&](int64_t row) {
      column[row] = unit.keys.size();
      unit.keys.push_back(row);
    };
    for (int64_t j = 0; j < first.parent.rows; ++j) add_key(segments[first.parent.segment].begin + j);
    for (size_t s : own) {
      for (int64_t i = 0; i < segments[s].length; ++i) {
        unit.rows.push_back(segments[s].begin + i);
        add_key(segments[s].begin + i);
      }
    }
    unit.visible.assign(unit.rows.size() * unit.keys.size(), 0);
    size_t query = 0;
    for (size_t s : own) {
      for (int64_t i = 0; i < segments[s].length; ++i, ++query) {
        uint8_t* sees = &unit.visible[query * unit.keys.size()];
        TokenForest::Place place{static_cast<int64_t>(s), i + 1};
        for (; place.segment >= 0; place = segments[place.segment].parent) {
          for (int64_t j = 0; j < place.rows; ++j) sees[column.at(segments[place.segment].begin + j)] = 1;
        }
      }
    }
    units.push_back(std::move(unit));
  }
  return units;
}

TreeAttention::Batch TreeAttention::MakeBatch(const std::vector<Unit>& units, const std::vector<size_t>& members,
                                              at::ScalarType dtype) {
  Batch batch{.units = static_cast<int64_t>(members.size())};
  for (size_t m : members) {
    batch.max_rows = std::max(batch.max_rows, static_cast<int64_t>(units[m].rows.size()));
    batch.max_keys = std::max(batch.max_keys, static_cast<int64_t>(units[m].keys.size()));
  }
  std::vector<int64_t> rows, keys;
  at::Tensor bias = at::full({batch.units, 1, batch.max_rows, batch.max_keys}, -std::numeric_limits<float>::infinity());
  float* values = bias.data_ptr<float>();
  for (size_t m : members) {
    const Unit& unit = units[m];
    const auto own_rows = static_cast<int64_t>(unit.rows.size()), own_keys = static_cast<int64_t>(unit.keys.size());
    for (int64_t i = 0; i < batch.max_rows; ++i) {
      // A padding query is the first one again, so that its softmax is defined; its result is not read.
      const int64_t row = i < own_rows ? i : 0;
      for (int64_t j = 0; j < own_keys; ++j) {
        if (unit.visible[row * own_keys + j] != 0) values[i * batch.max_keys + j] = 0;
      }
      rows.push_back(unit.rows[row]);
    }
    for (int64_t j = 0; j < batch.max_keys; ++j) keys.push_back(unit.keys[j < own_keys ? j : 0]);
    values += batch.max_rows * batch.max_keys;
  }
  batch.rows = at::tensor(rows);
  batch.keys = at::tensor(keys);
  batch.bias = bias.to(dtype);
  return batch;
}

TreeAttention::TreeAttention(const TokenForest& forest, at::ScalarType dtype) {
  const std::vector<Unit> units = Units(forest);
  std::vector<size_t> order(units.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(units[a].keys.size(), units[a].rows.size()) >
           std::pair(units[b].keys.size(), units[b].rows.size());
  });
  std::vector<int64_t> place(static_cast<size_t>(forest.num_rows()));
  int64_t begin = 0;  // of the batch in the outputs
  std::vector<size_t> members;
  size_t max_rows = 0, max_keys = 0, cells = 0;
  const auto close = [&]() {
    batches_.push_back(MakeBatch(units, members, dtype));
    const int64_t stride = batches_.back().max_rows;
    for (size_t u = 0; u < members.size(); ++u) {
      const Unit& unit = units[members[u]];
      for (size_t i = 0; i < unit.rows.size(); ++i) {
        place[unit.rows[i]] = begin + static_cast<int64_t>(u) * stride + static_cast<int64_t>(i);
      }
    }
    begin += batches_.back().units * stride;
    members.clear();
    max_rows = max_keys = cells = 0;
  };
  for (size_t u : order) {
    const size_t rows = std::max(max_rows, units[u].rows.size()), keys = std::max(max_keys, units[u].keys.size());
    const size_t real = cells + units[u].rows.size() * units[u].keys.size();
    if (!members.empty() && rows * keys * (members.size() + 1) > kMaxPadding * real) {
      close();
      max_rows = units[u].rows.size();
      max_keys = units[u].keys.size();
      cells = max_rows * max_keys;
    } else {
      max_rows = rows;
      max_keys = keys;
      cells = real;
    }
    members.push_back(u);
  }
  if (!members.empty()) close();
  place_ = at::tensor(place);
}

const at::Tensor& TreeAttention::BiasOf(Batch& batch, int64_t window, const at::Tensor& positions) {
  if (window == 0) return batch.bias;
  const auto [found, is_new] = batch.windowed.try_emplace(window);
  if (is_new) {
    const at::Tensor row = positions.index_select(0, batch.rows).view({batch.units, 1, batch.max_rows, 1});
    const at::Tensor key = positions.index_select(0, batch.keys).view({batch.units, 1, 1, batch.max_keys});
    found->second = batch.bias.masked_fill(row - key >= window, -std::numeric_limits<float>::infinity());
  }
  return found->second;
}

at::Tensor TreeAttention::Attend(int64_t, const AttentionRule& rule, const at::Tensor& q, const at::Tensor& k,
                                 const at::Tensor& v, const TokenLayout& layout) {
  const int64_t heads = q.size(1), kv_heads = k.size(1), head_dim = q.size(2), group = heads / kv_heads;
  std::vector<at::Tensor> outputs;
  for (Batch& batch : batches_) {
    // [units, heads, rows, head_dim]; the heads of a group read the same keys and values.
    const at::Tensor queries =
        q.index_select(0, batch.rows).view({batch.units, batch.max_rows, heads, head_dim}).permute({0, 2, 1, 3});
    const auto shared = [&](const at::Tensor& x) {
      return x.index_select(0, batch.keys)
          .view({batch.units, batch.max_keys, kv_heads, 1, head_dim})
          .permute({0, 2, 3, 1, 4})
          .expand({batch.units, kv_heads, group, batch.max_keys, head_dim})
          .reshape({batch.units, heads, batch.max_keys, head_dim});
    };
    outputs.push_back(at::scaled_dot_product_attention(queries, shared(k), shared(v),
                                                       BiasOf(batch, rule.window, layout.positions),
                                                       /*dropout_p=*/0.0, /*is_causal=*/false, rule.scale)
                          .permute({0, 2, 1, 3})
                          .reshape({batch.units * batch.max_rows, heads, head_dim}));
  }
  return (outputs.size() == 1 ? outputs[0] : at::cat(outputs)).index_select(0, place_);
}

}  // namespace trimtab
