#include "models/layers/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <utility>

#include "models/kernels/ops.h"
#include "models/layers/inference_pass.h"
#include "models/layers/workspace.h"

namespace trimtab {
namespace {

at::Tensor Tapped(LayerTap& tap, Site site, int64_t layer, at::Tensor value) {
  return tap.Wants(site, layer) ? tap.At(site, layer, std::move(value)) : value;
}

// Whether a gradient may begin or pass inside this block.
bool IsDifferentiable(const at::Tensor& hidden, const LayerTap& tap, int64_t layer) {
  return at::GradMode::is_enabled() && (hidden.requires_grad() || tap.Wants(Site::kAttentionHeads, layer) ||
                                        tap.Wants(Site::kAttentionOutput, layer) || tap.Wants(Site::kMlpOutput, layer));
}

}  // namespace

Decoder::Decoder(const ModelSpec& spec, std::vector<DecoderLayerWeights> layers,
                 std::vector<std::shared_ptr<const RopeTable>> ropes)
    : spec_(spec), layers_(std::move(layers)), ropes_(std::move(ropes)) {}

at::Tensor Decoder::DifferentiableBlock(int64_t layer, const at::Tensor& hidden, const at::Tensor& cos,
                                        const at::Tensor& sin, const ForwardContext& context) const {
  const DecoderLayerWeights& weights = layers_[static_cast<size_t>(layer)];
  const int64_t rows = hidden.size(0), d = spec_.head_dim, heads = spec_.num_heads, kv_heads = spec_.num_kv_heads;
  const at::ScalarType dtype = weights.qkv.plain_type();
  const auto norm = [&](const at::Tensor& x, const at::Tensor& weight, at::ScalarType type) {
    return weight.defined() ? ref::RmsNorm(x.to(at::kFloat), weight, spec_.norm_eps, type) : x.to(type);
  };
  const at::Tensor qkv = weights.qkv(norm(hidden, weights.attention_norm, dtype)).view({rows, heads + 2 * kv_heads, d});
  const at::Tensor q = Rope(norm(qkv.narrow(1, 0, heads), weights.query_norm, dtype), cos, sin);
  const at::Tensor k = Rope(norm(qkv.narrow(1, heads, kv_heads), weights.key_norm, dtype), cos, sin);
  const at::Tensor attended =
      context.attention.Attend(layer, spec_.attention(layer), q, k, qkv.narrow(1, heads + kv_heads, kv_heads),
                               context.layout);            // [T, heads, head_dim]
  at::Tensor mixed = attended.reshape({rows, heads * d});  // [T, heads * head_dim]
  if (context.tap.Wants(Site::kAttentionHeads, layer)) {
    mixed = context.tap.At(Site::kAttentionHeads, layer, mixed.to(at::kFloat)).to(mixed.scalar_type());
  }
  const at::Tensor attention = norm(weights.attention_output(mixed), weights.post_attention_norm, at::kFloat);
  const at::Tensor middle = hidden + Tapped(context.tap, Site::kAttentionOutput, layer, attention);
  const at::Tensor gated = weights.gate_up.Differentiable(
      norm(middle, weights.mlp_norm, dtype), spec_.layers[static_cast<size_t>(layer)].activation);  // [T, intermediate]
  const at::Tensor mlp = norm(weights.down(gated), weights.post_mlp_norm, at::kFloat);
  return middle + Tapped(context.tap, Site::kMlpOutput, layer, mlp);
}

at::Tensor Decoder::Forward(at::Tensor embeddings, const ForwardContext& context) const {
  const int64_t count = context.num_layers < 0 ? spec_.num_layers() : std::min(context.num_layers, spec_.num_layers());
  Workspace own;
  InferencePass inference(spec_, context, context.workspace != nullptr ? *context.workspace : own);
  bool inferring = false;                         // `inference` holds the residual stream
  at::Tensor hidden = embeddings.to(at::kFloat);  // [T, hidden], the residual stream unless `inferring`
  std::map<const RopeTable*, std::pair<at::Tensor, at::Tensor>> angles;  // cos, sin [T, head_dim / 2]
  for (int64_t layer = context.first_layer; layer < count; ++layer) {
    const RopeTable* table = ropes_[static_cast<size_t>(layer)].get();
    const auto [found, is_new] = angles.try_emplace(table);
    if (is_new) found->second = table->At(context.layout.positions);
    const auto& [cos, sin] = found->second;
    if (IsDifferentiable(hidden, context.tap, layer)) {
      if (std::exchange(inferring, false)) hidden = inference.Leave();
      hidden = DifferentiableBlock(layer, hidden, cos, sin, context);
    } else {
      if (!std::exchange(inferring, true)) inference.Enter(hidden);
      inference.Block(layer, layers_[static_cast<size_t>(layer)], cos, sin);
    }
    if (!context.tap.Wants(Site::kBlockOutput, layer)) continue;
    if (inferring) {
      if (RowEdit* edit = context.tap.Rows(Site::kBlockOutput, layer); edit != nullptr) {
        inference.Edit(edit);
        continue;
      }
      // The tap may keep what it gets: a pass that goes on would write into it.
      inferring = false;
      hidden = inference.Leave().clone();
    }
    hidden = context.tap.At(Site::kBlockOutput, layer, std::move(hidden));
  }
  return inferring ? inference.Leave() : hidden;
}

}  // namespace trimtab
