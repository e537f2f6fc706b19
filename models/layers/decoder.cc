#include "models/layers/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <tuple>
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
  return at::GradMode::is_enabled() &&
         (hidden.requires_grad() || tap.Wants(Site::kAttentionOutput, layer) || tap.Wants(Site::kMlpOutput, layer));
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
  at::Tensor normed = ref::RmsNorm(hidden, weights.attention_norm, spec_.norm_eps, dtype);
  const at::Tensor qkv = weights.qkv(normed).view({rows, heads + 2 * kv_heads, d});
  const at::Tensor rotated = Rope(qkv.narrow(1, 0, heads + kv_heads), cos, sin);  // [T, heads + kv_heads, head_dim]
  const at::Tensor attended = context.attention.Attend(
      layer, spec_.attention(layer), rotated.narrow(1, 0, heads), rotated.narrow(1, heads, kv_heads),
      qkv.narrow(1, heads + kv_heads, kv_heads), context.layout);  // [T, heads, head_dim]
  const at::Tensor attention = Tapped(context.tap, Site::kAttentionOutput, layer,
                                      weights.attention_output(attended.reshape({rows, heads * d})).to(at::kFloat));
  const at::Tensor middle = hidden + attention;
  normed = ref::RmsNorm(middle, weights.mlp_norm, spec_.norm_eps, dtype);
  const at::Tensor gated =
      weights.gate_up.Differentiable(normed, spec_.layers[static_cast<size_t>(layer)].activation);  // [T, intermediate]
  return middle + Tapped(context.tap, Site::kMlpOutput, layer, weights.down(gated).to(at::kFloat));
}

at::Tensor Decoder::Forward(at::Tensor embeddings, const ForwardContext& context) const {
  const int64_t count = context.num_layers < 0 ? spec_.num_layers() : std::min(context.num_layers, spec_.num_layers());
  Workspace own;
  InferencePass inference(spec_, context, context.workspace != nullptr ? *context.workspace : own);
  bool inferring = false;                         // `inference` holds the residual stream
  at::Tensor hidden = embeddings.to(at::kFloat);  // [T, hidden], the residual stream unless `inferring`
  const RopeTable* table = nullptr;
  at::Tensor cos, sin;  // [T, head_dim / 2]
  for (int64_t layer = context.first_layer; layer < count; ++layer) {
    if (ropes_[static_cast<size_t>(layer)].get() != table) {
      table = ropes_[static_cast<size_t>(layer)].get();
      std::tie(cos, sin) = table->At(context.layout.positions);
    }
    if (IsDifferentiable(hidden, context.tap, layer)) {
      if (std::exchange(inferring, false)) hidden = inference.Leave();
      hidden = DifferentiableBlock(layer, hidden, cos, sin, context);
    } else {
      if (!std::exchange(inferring, true)) inference.Enter(hidden);
      inference.Block(layer, layers_[static_cast<size_t>(layer)], cos, sin);
    }
    if (!context.tap.Wants(Site::kBlockOutput, layer)) continue;
    if (inferring) {
      if (RowEdit* edit = context.tap.Rows(layer); edit != nullptr) {
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
