// A decoder-only language model: const weights and three methods. Engine threads and job workers call the same ones.
#ifndef TRIMTAB_MODELS_CAUSAL_MODEL_H_
#define TRIMTAB_MODELS_CAUSAL_MODEL_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "models/forward_context.h"
#include "models/model_spec.h"

namespace trimtab {

// Immutable after loading; any thread. Weights never require grad; gradients flow to embeddings (and to whatever a tap
// adds) when grad mode is on and they require grad, else fused kernels run.
class CausalModel {
 public:
  virtual ~CausalModel() = default;

  virtual const ModelSpec& spec() const = 0;
  // The type in which gradients see the weights, and of the KV cache: kFloat or kBFloat16. The residual stream is
  // float32.
  virtual at::ScalarType dtype() const = 0;
  // Memory of the weights as they are kept.
  virtual int64_t weight_bytes() const = 0;

  // token_ids [T] int64 -> [T, hidden] float32.
  virtual at::Tensor Embed(const at::Tensor& token_ids) const = 0;
  // embeddings [T, hidden], any floating type (with context.first_layer: the residual stream that enters that block)
  // -> residual stream [T, hidden] float32 after the last block that context.num_layers allows, before the final norm.
  // Throws c10::Error on a shape mismatch (a programming error) and std::bad_alloc.
  virtual at::Tensor Forward(at::Tensor embeddings, const ForwardContext& context) const = 0;
  // Final norm and output head: hidden [R, hidden] -> float32 logits [R, vocab], which lie in `workspace` if there is
  // one.
  virtual at::Tensor Logits(const at::Tensor& hidden, Workspace* workspace = nullptr,
                            Arithmetic arithmetic = Arithmetic::kIntegers) const = 0;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_CAUSAL_MODEL_H_
