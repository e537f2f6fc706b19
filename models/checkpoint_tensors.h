// Which tensors a checkpoint of a model holds, under which names and in which shapes. The loader asks for exactly what
// is listed here; a dry run shows it without a checkpoint. No torch. Any thread.
#ifndef TRIMTAB_MODELS_CHECKPOINT_TENSORS_H_
#define TRIMTAB_MODELS_CHECKPOINT_TENSORS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "models/model_spec.h"

namespace trimtab {

enum class CheckpointFormat { kHuggingFace, kGguf };

enum class TensorRole {
  // Of the model.
  kEmbedding,
  kFinalNorm,
  kHead,         // unless tied to the embedding
  kRopeFactors,  // GGUF, where the converter wrote some
  // Of a layer.
  kAttentionNorm,
  kQuery,
  kKey,
  kValue,
  kQueryNorm,  // these two with LayerSpec::qk_norm
  kKeyNorm,
  kAttentionOutput,
  kPostAttentionNorm,  // with LayerSpec::sandwich_norms
  kMlpNorm,
  kGate,
  kUp,
  kDown,
  kPostMlpNorm,  // with LayerSpec::sandwich_norms
};

// What a role is called in either format, without ".weight" or ".bias"; in a layer behind that layer's own prefix
// ("model.layers.3.", "blk.3."). Empty: the format has no such tensor.
struct TensorName {
  TensorRole role;
  std::string_view hugging_face, gguf;
};

// The conventions of an architecture's checkpoints.
struct CheckpointLayout {
  absl::Span<const TensorName> names;               // of the roles that its models have
  std::string_view hugging_face_prefix = "model.";  // of all names but the head's
  // GGUF files hold the rows of a head of Q and K in (pair, half) order, for interleaved rotary embedding.
  bool gguf_interleaves_heads = false;
  // Hugging Face folders hold w where a norm multiplies with 1 + w.
  bool norms_less_one = false;
};

// The names of Llama and of those that follow it.
absl::Span<const TensorName> LlamaTensorNames();

struct ExpectedTensor {
  TensorRole role;
  int64_t layer;  // -1: of the model
  bool bias;
  std::string name;
  std::vector<int64_t> shape;  // [rows, columns] of a matrix, [elements] else
  bool optional;               // may be absent
};

// All tensors of a model, in the order of the layers. What a checkpoint holds beyond them is not read.
std::vector<ExpectedTensor> ExpectedTensors(const ModelSpec& spec, const CheckpointLayout& layout,
                                            CheckpointFormat format);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_CHECKPOINT_TENSORS_H_
