// Many variants of one text in one forward pass without repeating what they share: rows form a tree, and a row sees its
// own path from the root. Occlusion shares the prompt before the masked token; steering variants share everything
// before the first steered position. Exact, not an approximation. One job's thread.
#ifndef TRIMTAB_STEERING_TOKEN_TREE_H_
#define TRIMTAB_STEERING_TOKEN_TREE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <vector>

#include "models/attention/attention_backend.h"
#include "models/token_layout.h"

namespace trimtab {

class TokenForest {
 public:
  // A place to continue from: the first `rows` rows of `segment`, and all that they see. Segment -1: nothing.
  struct Place {
    int64_t segment = -1;
    int64_t rows = 0;
  };

  // Adds rows after `place` and returns the place at their end. `embeddings` is [n, hidden]; n = 0 returns `place`.
  // Segments of one tree must be added before the next root.
  Place Add(const Place& place, const at::Tensor& embeddings);

  int64_t num_rows() const { return num_rows_; }
  // Row of the last token before `place`, which must not be the empty one.
  int64_t last_row(const Place& place) const { return segments_[place.segment].begin + place.rows - 1; }

  at::Tensor Embeddings() const;  // [num_rows, hidden]
  // One span per tree, with positions along the paths.
  TokenLayout Layout() const;

 private:
  friend class TreeAttention;
  struct Segment {
    Place parent;
    int64_t root = 0;  // index in roots_
    int64_t begin = 0, length = 0;
    int64_t position = 0;  // of the first row
  };

  std::vector<Segment> segments_;
  std::vector<int64_t> roots_;  // first segments of the trees
  std::vector<at::Tensor> embeddings_;
  int64_t num_rows_ = 0;
};

// Attention over a forest's rows. A root, and each of the root's continuations with all that follows it, is a unit: its
// rows see the root's rows before it and each other. Units of like size run as one padded batch. Differentiable.
class TreeAttention final : public AttentionBackend {
 public:
  TreeAttention(const TokenForest& forest, at::ScalarType dtype);
  at::Tensor Attend(int64_t layer, const AttentionRule& rule, const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& v, const TokenLayout& layout) override;

 private:
  struct Unit {
    std::vector<int64_t> rows;     // queries
    std::vector<int64_t> keys;     // rows that some query sees
    std::vector<uint8_t> visible;  // [rows, keys]
  };
  struct Batch {
    int64_t units = 0, max_rows = 0, max_keys = 0;
    at::Tensor rows, keys;  // [units * max_rows], [units * max_keys] int64; padding repeats the unit's first
    at::Tensor bias;        // [units, 1, max_rows, max_keys] in the activations' type: 0 or minus infinity
    std::map<int64_t, at::Tensor> windowed;  // by window: the bias with what is too far back hidden as well
  };
  static std::vector<Unit> Units(const TokenForest& forest);
  static Batch MakeBatch(const std::vector<Unit>& units, const std::vector<size_t>& members, at::ScalarType dtype);
  static const at::Tensor& BiasOf(Batch& batch, int64_t window, const at::Tensor& positions);  // positions [num_rows]

  std::vector<Batch> batches_;
  at::Tensor place_;  // [num_rows] int64: where each row's result stands in the batches' outputs, one after another
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_TOKEN_TREE_H_
