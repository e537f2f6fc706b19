// The weights of one block of a decoder. Const after loading; any thread.
#ifndef TRIMTAB_MODELS_LAYERS_DECODER_WEIGHTS_H_
#define TRIMTAB_MODELS_LAYERS_DECODER_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include "models/layers/linear.h"

namespace trimtab {

// Projections that share an input are one matrix. Norms are float32; those that LayerSpec does not ask for are
// undefined.
struct DecoderLayerWeights {
  at::Tensor attention_norm;        // [hidden]
  Linear qkv;                       // [(heads + 2 kv_heads) * head_dim, hidden]
  at::Tensor query_norm, key_norm;  // [head_dim] (qk_norm)
  Linear attention_output;          // [hidden, heads * head_dim]
  at::Tensor post_attention_norm;   // [hidden] (sandwich_norms)
  at::Tensor mlp_norm;              // [hidden]
  GatedLinear gate_up;              // hidden -> intermediate
  Linear down;                      // [hidden, intermediate]
  at::Tensor post_mlp_norm;         // [hidden] (sandwich_norms)
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_LAYERS_DECODER_WEIGHTS_H_
