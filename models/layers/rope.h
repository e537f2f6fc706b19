// Rotary position tables, made once per model and rope setting. Const afterwards; any thread.
#ifndef TRIMTAB_MODELS_LAYERS_ROPE_H_
#define TRIMTAB_MODELS_LAYERS_ROPE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/model_spec.h"

namespace trimtab {

// Rotation speed of each of the head_dim / 2 pairs, radians per position: base^(-2i/d), scaled as `spec` says (llama3:
// Meta's piecewise rule of Llama 3.1). `factors`: divisors per pair from the checkpoint (GGUF's rope_freqs.weight) in
// place of the computed scaling; empty without.
std::vector<double> RopeFrequencies(const RopeSpec& spec, int64_t head_dim, const std::vector<float>& factors = {});

// Cosines and sines by position.
class RopeTable {
 public:
  RopeTable(const std::vector<double>& frequencies, int64_t context_length);
  // positions [T] int64, each below the context length -> {cos, sin} float32 [T, head_dim / 2].
  std::pair<at::Tensor, at::Tensor> At(const at::Tensor& positions) const;

 private:
  at::Tensor cos_, sin_;  // float32 [context, head_dim / 2]
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_LAYERS_ROPE_H_
