// The blocks of a decoder without gradients: raw rows in memory that is kept, five parallel sections per block.
// Additions to the residual stream, edits of taps, norms and the narrowing for the next product are one pass over each
// row.
#ifndef TRIMTAB_MODELS_LAYERS_INFERENCE_PASS_H_
#define TRIMTAB_MODELS_LAYERS_INFERENCE_PASS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "models/forward_context.h"
#include "models/layers/decoder_weights.h"
#include "models/layers/workspace.h"
#include "models/model_spec.h"

namespace trimtab {

// One forward pass; one thread (and its team).
class InferencePass {
 public:
  InferencePass(const ModelSpec& spec, const ForwardContext& context, Workspace& workspace);

  // The residual stream [T, hidden] float32 that enters the next block. It is not written to.
  void Enter(at::Tensor hidden);
  // Runs a block. cos, sin: float32 [T, head_dim / 2].
  void Block(int64_t layer, const DecoderLayerWeights& weights, const at::Tensor& cos, const at::Tensor& sin);
  // Edits the rows that leave the last block; `edit` is used by the next call.
  void Edit(RowEdit* edit) { edit_ = edit; }
  // The residual stream after what has been run, [T, hidden].
  at::Tensor Leave();

 private:
  // Adds `delta_` to the residual stream and edits it; with a norm, then writes the normalised rows to `input`.
  void UpdateRows(const at::Tensor* norm, RowForm form);
  // RMSNorm over each head of queries and keys, in place: qkv [T, heads + 2 kv_heads, head_dim] float32.
  void NormalizeHeads(const DecoderLayerWeights& weights, at::Tensor& qkv) const;
  // What a sublayer adds, [T, hidden], is to be normalised (undefined: as it is), tapped and added.
  void SetDelta(Site site, int64_t layer, at::Tensor value, const at::Tensor& norm);

  const ModelSpec& spec_;
  const ForwardContext& context_;
  Workspace& workspace_;
  const int64_t rows_;
  at::Tensor hidden_;              // [T, hidden]
  bool own_ = false;               // hidden_ may be written to
  at::Tensor delta_;               // [T, hidden], yet to be added; or undefined
  at::Tensor delta_norm_;          // [hidden], yet to be applied to delta_; or undefined
  RowEdit* delta_edit_ = nullptr;  // yet to be applied to delta_, behind that norm
  RowEdit* edit_ = nullptr;        // of the rows after that addition
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_LAYERS_INFERENCE_PASS_H_
