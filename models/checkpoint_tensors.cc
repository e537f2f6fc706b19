#include "models/checkpoint_tensors.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"

namespace trimtab {
namespace {

constexpr TensorName kLlamaNames[] = {
    {TensorRole::kEmbedding, "embed_tokens", "token_embd"},
    {TensorRole::kFinalNorm, "norm", "output_norm"},
    {TensorRole::kHead, "lm_head", "output"},
    {TensorRole::kRopeFactors, "", "rope_freqs"},
    {TensorRole::kAttentionNorm, "input_layernorm", "attn_norm"},
    {TensorRole::kQuery, "self_attn.q_proj", "attn_q"},
    {TensorRole::kKey, "self_attn.k_proj", "attn_k"},
    {TensorRole::kValue, "self_attn.v_proj", "attn_v"},
    {TensorRole::kAttentionOutput, "self_attn.o_proj", "attn_output"},
    {TensorRole::kMlpNorm, "post_attention_layernorm", "ffn_norm"},
    {TensorRole::kGate, "mlp.gate_proj", "ffn_gate"},
    {TensorRole::kUp, "mlp.up_proj", "ffn_up"},
    {TensorRole::kDown, "mlp.down_proj", "ffn_down"},
};

// Collects the tensors of one format.
class Collector {
 public:
  Collector(const CheckpointLayout& layout, CheckpointFormat format)
      : layout_(layout), gguf_(format == CheckpointFormat::kGguf) {}

  void Add(TensorRole role, std::vector<int64_t> shape, bool bias = false) {
    for (const TensorName& entry : layout_.names) {
      const std::string_view own = gguf_ ? entry.gguf : entry.hugging_face;
      if (entry.role != role || own.empty()) continue;
      tensors_.push_back(
          {.role = role,
           .layer = layer_,
           .bias = bias,
           .name = absl::StrCat(Prefix(role), absl::string_view(own.data(), own.size()), bias ? ".bias" : ".weight"),
           .shape = std::move(shape),
           .optional = role == TensorRole::kRopeFactors});
      return;
    }
  }
  // A matrix and, if it has one, its bias.
  void AddLinear(TensorRole role, int64_t rows, int64_t columns, bool has_bias) {
    Add(role, {rows, columns});
    if (has_bias) Add(role, {rows}, /*bias=*/true);
  }
  void EnterLayer(int64_t layer) { layer_ = layer; }
  std::vector<ExpectedTensor> Take() { return std::move(tensors_); }

 private:
  std::string Prefix(TensorRole role) const {
    if (gguf_) return layer_ < 0 ? "" : absl::StrCat("blk.", layer_, ".");
    const std::string model(layout_.hugging_face_prefix);
    if (layer_ >= 0) return absl::StrCat(model, "layers.", layer_, ".");
    return role == TensorRole::kHead ? "" : model;
  }

  const CheckpointLayout& layout_;
  const bool gguf_;
  int64_t layer_ = -1;
  std::vector<ExpectedTensor> tensors_;
};

}  // namespace

absl::Span<const TensorName> LlamaTensorNames() { return kLlamaNames; }

std::vector<ExpectedTensor> ExpectedTensors(const ModelSpec& spec, const CheckpointLayout& layout,
                                            CheckpointFormat format) {
  Collector all(layout, format);
  const int64_t hidden = spec.hidden_size, ff = spec.intermediate_size;
  const int64_t queries = spec.num_heads * spec.head_dim, keys = spec.num_kv_heads * spec.head_dim;
  all.Add(TensorRole::kEmbedding, {spec.vocab_size, hidden});
  all.Add(TensorRole::kRopeFactors, {spec.head_dim / 2});
  for (int64_t i = 0; i < spec.num_layers(); ++i) {
    const LayerSpec& layer = spec.layers[static_cast<size_t>(i)];
    all.EnterLayer(i);
    all.Add(TensorRole::kAttentionNorm, {hidden});
    all.AddLinear(TensorRole::kQuery, queries, hidden, layer.qkv_bias);
    all.AddLinear(TensorRole::kKey, keys, hidden, layer.qkv_bias);
    all.AddLinear(TensorRole::kValue, keys, hidden, layer.qkv_bias);
    if (layer.qk_norm) {
      all.Add(TensorRole::kQueryNorm, {spec.head_dim});
      all.Add(TensorRole::kKeyNorm, {spec.head_dim});
    }
    all.AddLinear(TensorRole::kAttentionOutput, hidden, queries, layer.output_bias);
    if (layer.sandwich_norms) all.Add(TensorRole::kPostAttentionNorm, {hidden});
    all.Add(TensorRole::kMlpNorm, {hidden});
    all.AddLinear(TensorRole::kGate, ff, hidden, layer.mlp_bias);
    all.AddLinear(TensorRole::kUp, ff, hidden, layer.mlp_bias);
    all.AddLinear(TensorRole::kDown, hidden, ff, layer.mlp_bias);
    if (layer.sandwich_norms) all.Add(TensorRole::kPostMlpNorm, {hidden});
  }
  all.EnterLayer(-1);
  all.Add(TensorRole::kFinalNorm, {hidden});
  if (!spec.tied_embeddings) all.Add(TensorRole::kHead, {spec.vocab_size, hidden});
  return all.Take();
}

}  // namespace trimtab
