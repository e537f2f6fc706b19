// The decoder: one kind of block, read from LayerSpec, and the one loop over blocks. Serving, gradients and capture all
// go through it, so no tap can be missed. Const after loading; any thread.
#ifndef TRIMTAB_MODELS_LAYERS_DECODER_H_
#define TRIMTAB_MODELS_LAYERS_DECODER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "models/forward_context.h"
#include "models/layers/decoder_weights.h"
#include "models/layers/rope.h"
#include "models/model_spec.h"

namespace trimtab {

class Decoder {
 public:
  // `ropes`: one per layer; layers with the same setting share a table.
  Decoder(const ModelSpec& spec, std::vector<DecoderLayerWeights> layers,
          std::vector<std::shared_ptr<const RopeTable>> ropes);

  // embeddings [T, hidden] of any floating type -> the residual stream [T, hidden] after the last block that the
  // context allows. The stream, and so what taps see, is float32 whatever the weights' type: blocks add small things to
  // large. Blocks that no gradient passes through run as inference.
  at::Tensor Forward(at::Tensor embeddings, const ForwardContext& context) const;

 private:
  // hidden [T, hidden] float32 -> what leaves the block, before the tap at its output.
  at::Tensor DifferentiableBlock(int64_t layer, const at::Tensor& hidden, const at::Tensor& cos, const at::Tensor& sin,
                                 const ForwardContext& context) const;

  const ModelSpec spec_;
  const std::vector<DecoderLayerWeights> layers_;
  const std::vector<std::shared_ptr<const RopeTable>> ropes_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_LAYERS_DECODER_H_
