// A CausalModel made of an embedding table, the decoder, a final norm and an output head: what every architecture here
// is once its checkpoint has been read.
#ifndef TRIMTAB_MODELS_DECODER_MODEL_H_
#define TRIMTAB_MODELS_DECODER_MODEL_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "models/causal_model.h"
#include "models/layers/decoder.h"
#include "models/layers/linear.h"

namespace trimtab {

// Matrices of one plain type, norms float32; on the CPU, without gradient.
struct DecoderModelWeights {
  Linear embedding;  // [vocab, hidden]
  std::vector<DecoderLayerWeights> layers;
  at::Tensor final_norm;            // [hidden]
  std::optional<Linear> head;       // [vocab, hidden]; nullopt: tied to the embedding
  std::vector<float> rope_factors;  // per pair, from the checkpoint; empty without
};

std::shared_ptr<const CausalModel> MakeDecoderModel(ModelSpec spec, DecoderModelWeights weights);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_DECODER_MODEL_H_
