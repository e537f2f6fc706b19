#include "models/decoder_model.h"

#include <ATen/ops/mul.h>

#include <algorithm>
#include <utility>

#include "models/kernels/ops.h"
#include "models/kernels/row_buffer.h"
#include "models/layers/sliced_product.h"
#include "models/layers/workspace.h"

namespace trimtab {
namespace {

// One table for each setting, shared by its layers.
std::vector<std::shared_ptr<const RopeTable>> MakeRopes(const ModelSpec& spec, const std::vector<float>& factors) {
  std::vector<std::shared_ptr<const RopeTable>> ropes;
  for (const LayerSpec& layer : spec.layers) {
    const auto same = std::find_if(spec.layers.begin(), spec.layers.begin() + static_cast<int64_t>(ropes.size()),
                                   [&](const LayerSpec& before) { return before.rope == layer.rope; });
    const auto place = static_cast<size_t>(same - spec.layers.begin());
    ropes.push_back(place < ropes.size()
                        ? ropes[place]
                        : std::make_shared<RopeTable>(RopeFrequencies(layer.rope, spec.head_dim, factors)));
  }
  return ropes;
}

class DecoderModel final : public CausalModel {
 public:
  DecoderModel(ModelSpec spec, DecoderModelWeights weights)
      : spec_(std::move(spec)),
        embedding_(std::move(weights.embedding)),
        final_norm_(std::move(weights.final_norm)),
        head_(weights.head ? *weights.head : embedding_),
        weight_bytes_(Bytes(weights)),
        decoder_(spec_, std::move(weights.layers), MakeRopes(spec_, weights.rope_factors)) {}

  const ModelSpec& spec() const override { return spec_; }
  at::ScalarType dtype() const override { return embedding_.plain_type(); }
  int64_t weight_bytes() const override { return weight_bytes_; }
  at::Tensor Embed(const at::Tensor& token_ids) const override {
    at::Tensor rows = embedding_.Rows(token_ids);
    return spec_.embedding_scale == 1 ? rows : rows.mul_(spec_.embedding_scale);
  }
  at::Tensor Forward(at::Tensor embeddings, const ForwardContext& context) const override {
    return decoder_.Forward(std::move(embeddings), context);
  }
  at::Tensor Logits(const at::Tensor& hidden, Workspace* workspace, Arithmetic arithmetic) const override {
    if (NeedsGradient(hidden)) {
      // bfloat16 logits would round what attribution measures: multiply in float32.
      const at::Tensor normed = ref::RmsNorm(hidden.to(at::kFloat), final_norm_, spec_.norm_eps, dtype());
      return SlicedProduct(normed.to(at::kFloat), head_);
    }
    Workspace own;
    Workspace& memory = workspace != nullptr ? *workspace : own;
    const at::Tensor rows = hidden.to(at::kFloat).contiguous();
    const int64_t count = rows.size(0), size = spec_.hidden_size;
    memory.input.Reset(head_.input(arithmetic), count, size);
    for (int64_t row = 0; row < count; ++row) {
      NormalizeRow(rows.const_data_ptr<float>() + row * size, final_norm_.const_data_ptr<float>(), size,
                   static_cast<float>(spec_.norm_eps), memory.input, row);
    }
    at::Tensor logits = memory.logits.Get(count, spec_.vocab_size, at::kFloat);
    head_.Multiply(memory.input.view(), count, logits.mutable_data_ptr<float>());
    return logits;
  }

 private:
  int64_t Bytes(const DecoderModelWeights& weights) const {
    int64_t bytes = embedding_.bytes() + (weights.head ? weights.head->bytes() : 0);
    for (const DecoderLayerWeights& layer : weights.layers) {
      bytes += layer.qkv.bytes() + layer.attention_output.bytes() + layer.gate_up.bytes() + layer.down.bytes();
    }
    return bytes;
  }

  const ModelSpec spec_;
  const Linear embedding_;
  const at::Tensor final_norm_;
  const Linear head_;
  const int64_t weight_bytes_;
  const Decoder decoder_;
};

}  // namespace

std::shared_ptr<const CausalModel> MakeDecoderModel(ModelSpec spec, DecoderModelWeights weights) {
  return std::make_shared<DecoderModel>(std::move(spec), std::move(weights));
}

}  // namespace trimtab
