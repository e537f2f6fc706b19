// A seeded random model of any architecture small enough for tests that run it thousands of times.
#ifndef TRIMTAB_MODELS_TESTING_TINY_MODEL_H_
#define TRIMTAB_MODELS_TESTING_TINY_MODEL_H_

#include <cstdint>
#include <memory>

#include "models/decoder_model.h"
#include "models/loaded_model.h"
#include "models/model_spec.h"

namespace trimtab {

// What sets the architectures apart: Qwen2 has biases; Mistral windows of kTinyWindow; Gemma 3 all norms, windows in
// two layers of three with a rotary embedding of their own, scaled embeddings, a scale of scores and a gated GELU.
enum class TinyArchitecture { kLlama, kQwen2, kMistral, kGemma3 };
constexpr int64_t kTinyWindow = 16;

struct TinyModelOptions {
  TinyArchitecture architecture = TinyArchitecture::kLlama;
  int64_t num_layers = 4;
  int64_t hidden_size = 32;
  int64_t num_heads = 4;
  int64_t num_kv_heads = 2;
  int64_t context_length = 512;
  uint64_t seed = 1;
  at::ScalarType dtype = at::kFloat;
  bool grouped = false;  // matrices in 8 bits, as of a quantised file
};

// vocab_size is that of TinyTokenizer.
ModelSpec TinyModelSpec(const TinyModelOptions& options = {});
// Weights ~ N(0, 1/sqrt(fan in)), embeddings N(0, 1), norms near 1: activations are of order 1 and tokens matter.
DecoderModelWeights TinyModelWeights(const ModelSpec& spec, uint64_t seed, at::ScalarType dtype, bool grouped = false);
std::shared_ptr<const CausalModel> MakeTinyModel(const TinyModelOptions& options = {});

// Byte-level, without merges: one token a byte, then "<|end|>" (end of generation), "<|user|>", "<|assistant|>" and
// "<|pad|>".
std::shared_ptr<const Tokenizer> TinyTokenizer();

// Model, tokenizer and a chat template over them. Aborts the test on an error.
std::shared_ptr<const LoadedModel> MakeTinyLoadedModel(const TinyModelOptions& options = {});

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TESTING_TINY_MODEL_H_
