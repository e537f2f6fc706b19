// Rotary positions, one object per model and rope setting. Const afterwards; any thread.
#ifndef TRIMTAB_MODELS_LAYERS_ROPE_H_
#define TRIMTAB_MODELS_LAYERS_ROPE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "models/model_spec.h"

namespace trimtab {

// Rotation speed of each of the head_dim / 2 pairs, radians per position: base^(-2i/d), scaled as `spec` says (llama3:
// Meta's piecewise rule of Llama 3.1). `factors`: divisors per pair from the checkpoint (GGUF's rope_freqs.weight) in
// place of the computed scaling; empty without.
std::vector<double> RopeFrequencies(const RopeSpec& spec, int64_t head_dim, const std::vector<float>& factors = {});

// Cosines and sines by position, computed when asked for: a step needs few, and a file that claims a context of
// millions costs nothing.
class RopeTable {
 public:
  explicit RopeTable(const std::vector<double>& frequencies);
  // positions [T] int64 -> {cos, sin} float32 [T, head_dim / 2].
  std::pair<at::Tensor, at::Tensor> At(const at::Tensor& positions) const;

 private:
  std::vector<float> frequencies_;  // [head_dim / 2], radians per position
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_LAYERS_ROPE_H_
