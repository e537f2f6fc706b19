// What a decoder-only transformer is, as data: the loaders fill it from a checkpoint's own configuration, one
// DecoderLayer reads it. No torch. Any thread.
#ifndef TRIMTAB_MODELS_MODEL_SPEC_H_
#define TRIMTAB_MODELS_MODEL_SPEC_H_

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace trimtab {

enum class Activation { kSilu, kGeluTanh };

// How inference multiplies with weights that are kept as integers. Serving takes kIntegers: fast, but rows are rounded
// to 8 bits on the way. Attribution looks at differences as small as that rounding: it takes kPlain, the weights'
// values in bfloat16 or float32, as gradients do. No difference for other weights.
enum class Arithmetic { kIntegers, kPlain };

// Scaling of the rotary frequencies for contexts longer than the training context.
struct RopeSpec {
  enum class Scaling { kNone, kLinear, kLlama3 };
  double base = 10000;
  Scaling scaling = Scaling::kNone;
  double factor = 1;                // kLinear, kLlama3
  double low_frequency_factor = 1;  // kLlama3
  double high_frequency_factor = 4;
  int64_t original_context = 8192;

  bool operator==(const RopeSpec&) const = default;
};

// How the scores of one layer become weights.
struct AttentionRule {
  double scale;        // of the products of queries and keys
  int64_t window = 0;  // a row sees so many positions, its own the last of them; 0: all up to its own
};

// One block: x += Attention(norm(x)); x += Mlp(norm(x)).
struct LayerSpec {
  bool qkv_bias = false;
  bool output_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;         // RMSNorm over each head of queries and keys, before the rotary embedding
  bool sandwich_norms = false;  // RMSNorm also over what attention and MLP add to x
  Activation activation = Activation::kSilu;
  int64_t window = 0;  // see AttentionRule
  RopeSpec rope;

  bool operator==(const LayerSpec&) const = default;
};

struct ModelSpec {
  std::string architecture;  // for example "llama"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;  // divides num_heads
  int64_t head_dim = 0;      // even
  int64_t context_length = 0;
  double norm_eps = 1e-5;
  double embedding_scale = 1;  // of the table's rows on their way in; not of the output head
  double attention_scale = 0;  // see AttentionRule; 0: 1 / sqrt(head_dim)
  bool tied_embeddings = false;
  std::vector<LayerSpec> layers;

  int64_t num_layers() const { return static_cast<int64_t>(layers.size()); }
  AttentionRule attention(int64_t layer) const {
    return {.scale = attention_scale > 0 ? attention_scale : 1 / std::sqrt(static_cast<double>(head_dim)),
            .window = layers[static_cast<size_t>(layer)].window};
  }
  // Bytes of K and V for one token over all layers.
  int64_t kv_bytes_per_token(int64_t element_bytes) const {
    return 2 * num_layers() * num_kv_heads * head_dim * element_bytes;
  }
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_MODEL_SPEC_H_
