// The decoder: one kind of block, read from LayerSpec, and the one loop over blocks. Serving, gradients and capture all
// go through it, so no tap can be missed. Const after loading; any thread.
#ifndef TRIMTAB_MODELS_LAYERS_DECODER_H_
#define TRIMTAB_MODELS_LAYERS_DECODER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "models/forward_context.h"
#include "models/layers/linear.h"
#include "models/layers/rope.h"
#include "models/model_spec.h"

namespace trimtab {

// The weights of one block; projections that share an input are one matrix. Norms are float32.
struct DecoderLayerWeights {
  at::Tensor attention_norm;  // [hidden]
  Linear qkv;                 // [(heads + 2 kv_heads) * head_dim, hidden]
  Linear attention_output;    // [hidden, heads * head_dim]
  at::Tensor mlp_norm;        // [hidden]
  Linear gate_up;             // [2 * intermediate, hidden]
  Linear down;                // [hidden, intermediate]
};

class Decoder {
 public:
  // `ropes`: one per layer; layers with the same setting share a table.
  Decoder(const ModelSpec& spec, std::vector<DecoderLayerWeights> layers,
          std::vector<std::shared_ptr<const RopeTable>> ropes);

  // embeddings [T, hidden] of any floating type -> the residual stream [T, hidden] after the last block that the
  // context allows. The stream, and so what taps see, is float32 whatever the weights' type: blocks add small things to
  // large.
  at::Tensor Forward(at::Tensor embeddings, const ForwardContext& context) const;

 private:
  const ModelSpec spec_;
  const at::ScalarType dtype_;  // of the weights and of what enters the matrix products
  const std::vector<DecoderLayerWeights> layers_;
  const std::vector<std::shared_ptr<const RopeTable>> ropes_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_LAYERS_DECODER_H_
