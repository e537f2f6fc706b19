#include "models/decoder_model.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/linear.h>

#include <utility>

#include "models/kernels/ops.h"

namespace trimtab {
namespace {

std::vector<std::shared_ptr<const RopeTable>> MakeRopes(const ModelSpec& spec, const std::vector<float>& factors) {
  std::vector<std::shared_ptr<const RopeTable>> ropes;
  for (int64_t layer = 0; layer < spec.num_layers(); ++layer) {
    const RopeSpec& rope = spec.layers[static_cast<size_t>(layer)].rope;
    if (layer > 0 && rope == spec.layers[static_cast<size_t>(layer - 1)].rope) {
      ropes.push_back(ropes.back());
    } else {
      ropes.push_back(std::make_shared<RopeTable>(RopeFrequencies(rope, spec.head_dim, factors)));
    }
  }
  return ropes;
}

class DecoderModel final : public CausalModel {
 public:
  DecoderModel(ModelSpec spec, DecoderModelWeights weights)
      : spec_(std::move(spec)),
        embedding_(std::move(weights.embedding)),
        final_norm_(std::move(weights.final_norm)),
        head_(weights.head.defined() ? weights.head : embedding_),
        decoder_(spec_, std::move(weights.layers), MakeRopes(spec_, weights.rope_factors)) {}

  const ModelSpec& spec() const override { return spec_; }
  at::ScalarType dtype() const override { return embedding_.scalar_type(); }
  at::Tensor Embed(const at::Tensor& token_ids) const override { return at::embedding(embedding_, token_ids); }
  at::Tensor Forward(at::Tensor embeddings, const ForwardContext& context) const override {
    return decoder_.Forward(std::move(embeddings), context);
  }
  at::Tensor Logits(const at::Tensor& hidden) const override {
    const at::Tensor normed = RmsNorm(hidden.to(at::kFloat), final_norm_, spec_.norm_eps, dtype());
    // With gradients, bfloat16 logits would round what attribution measures: multiply in float32.
    return NeedsGradient(normed) ? at::linear(normed.to(at::kFloat), head_.weight().to(at::kFloat))
                                 : head_.ToFloat(normed);
  }

 private:
  const ModelSpec spec_;
  const at::Tensor embedding_, final_norm_;
  const Linear head_;
  const Decoder decoder_;
};

}  // namespace

std::shared_ptr<const CausalModel> MakeDecoderModel(ModelSpec spec, DecoderModelWeights weights) {
  return std::make_shared<DecoderModel>(std::move(spec), std::move(weights));
}

}  // namespace trimtab
