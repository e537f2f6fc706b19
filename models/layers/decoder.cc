#include "models/layers/decoder.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "models/kernels/ops.h"

namespace trimtab {
namespace {

at::Tensor Tapped(LayerTap& tap, Site site, int64_t layer, at::Tensor value) {
  return tap.Wants(site, layer) ? tap.At(site, layer, std::move(value)) : value;
}

}  // namespace

Decoder::Decoder(const ModelSpec& spec, std::vector<DecoderLayerWeights> layers,
                 std::vector<std::shared_ptr<const RopeTable>> ropes)
    : spec_(spec),
      dtype_(layers.at(0).qkv.weight().scalar_type()),
      layers_(std::move(layers)),
      ropes_(std::move(ropes)) {}

at::Tensor Decoder::Forward(at::Tensor embeddings, const ForwardContext& context) const {
  const int64_t count = context.num_layers < 0 ? spec_.num_layers() : std::min(context.num_layers, spec_.num_layers());
  const int64_t rows = embeddings.size(0), d = spec_.head_dim, heads = spec_.num_heads, kv_heads = spec_.num_kv_heads;
  at::Tensor hidden = embeddings.to(at::kFloat);  // [T, hidden], the residual stream
  at::Tensor mlp;                                 // [T, hidden], what the last block has yet to add; or undefined
  const RopeTable* table = nullptr;
  at::Tensor cos, sin;  // [T, head_dim / 2]
  for (int64_t layer = context.first_layer; layer < count; ++layer) {
    const DecoderLayerWeights& weights = layers_[static_cast<size_t>(layer)];
    const LayerSpec& spec = spec_.layers[static_cast<size_t>(layer)];
    if (ropes_[static_cast<size_t>(layer)].get() != table) {
      table = ropes_[static_cast<size_t>(layer)].get();
      std::tie(cos, sin) = table->At(context.layout.positions);
    }
    at::Tensor normed;  // [T, hidden] in the weights' type
    if (mlp.defined()) {
      std::tie(hidden, normed) = AddRmsNorm(hidden, mlp, weights.attention_norm, spec_.norm_eps, dtype_);
    } else {
      normed = RmsNorm(hidden, weights.attention_norm, spec_.norm_eps, dtype_);
    }
    const at::Tensor qkv = weights.qkv(normed).view({rows, heads + 2 * kv_heads, d});
    const at::Tensor rotated = Rope(qkv.narrow(1, 0, heads + kv_heads), cos, sin);  // [T, heads + kv_heads, head_dim]
    const at::Tensor attended =
        context.attention.Attend(layer, rotated.narrow(1, 0, heads), rotated.narrow(1, heads, kv_heads),
                                 qkv.narrow(1, heads + kv_heads, kv_heads),
                                 context.layout);  // [T, heads, head_dim]
    const at::Tensor attention = Tapped(context.tap, Site::kAttentionOutput, layer,
                                        weights.attention_output.ToFloat(attended.reshape({rows, heads * d})));
    std::tie(hidden, normed) = AddRmsNorm(hidden, attention, weights.mlp_norm, spec_.norm_eps, dtype_);
    const at::Tensor gated = GatedProduct(weights.gate_up(normed), spec.activation);  // [T, intermediate]
    mlp = Tapped(context.tap, Site::kMlpOutput, layer, weights.down.ToFloat(gated));
    if (layer + 1 == count || context.tap.Wants(Site::kBlockOutput, layer)) {
      hidden = Tapped(context.tap, Site::kBlockOutput, layer, hidden + mlp);
      mlp = at::Tensor();
    }
  }
  return hidden;
}

}  // namespace trimtab
