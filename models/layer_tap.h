// The only hook in a model: sees, and may replace, activations at fixed sites of each block.
#ifndef TRIMTAB_MODELS_LAYER_TAP_H_
#define TRIMTAB_MODELS_LAYER_TAP_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "models/site.h"

namespace trimtab {

// An edit of single rows, called for different rows by different threads, each row once.
class RowEdit {
 public:
  virtual ~RowEdit() = default;
  virtual void Edit(int64_t row, float* values) = 0;  // values: [hidden_size], edited in place
};

// Called by the layer loop once per (site, layer), in order. Implementations belong to one forward pass at a time.
class LayerTap {
 public:
  virtual ~LayerTap() = default;
  // `hidden` is [num_tokens, hidden] float32 (kAttentionHeads: [num_tokens, heads * head_dim]); returns a tensor of the
  // same shape and type (or `hidden` itself). Must not write into `hidden`.
  virtual at::Tensor At(Site site, int64_t layer, at::Tensor hidden) = 0;
  // False lets a fused kernel skip the call and never changes results.
  virtual bool Wants(Site site, int64_t layer) const = 0;
  // A tap whose whole effect at a wanted site is an edit of single rows may say so: inference then calls this in place
  // of At and fuses the edit with its own pass over the row. The edit is used before the next call of Rows or At for
  // the same site. Null: At is called. Not asked for kAttentionHeads.
  virtual RowEdit* Rows(Site /*site*/, int64_t /*layer*/) { return nullptr; }
};

// Leaves everything as it is.
class IdentityTap final : public LayerTap {
 public:
  at::Tensor At(Site, int64_t, at::Tensor hidden) override { return hidden; }
  bool Wants(Site, int64_t) const override { return false; }
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_LAYER_TAP_H_
