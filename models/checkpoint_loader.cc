#include "models/checkpoint_loader.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "models/decoder_model.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

class CheckpointLoader {
 public:
  CheckpointLoader(const ModelSpec& spec, const CheckpointLayout& layout, const TensorSource& source,
                   CheckpointFormat format, WeightForm form)
      : spec_(spec), layout_(layout), source_(source), format_(format), form_(form) {
    for (ExpectedTensor& tensor : ExpectedTensors(spec, layout, format)) {
      const auto key = std::tuple(tensor.layer, tensor.role, tensor.bias);
      tensors_.emplace(key, std::move(tensor));
    }
  }

  absl::StatusOr<DecoderModelWeights> Load() {
    DecoderModelWeights weights;
    TRIMTAB_ASSIGN_OR_RETURN(weights.embedding, LoadLinear({TensorRole::kEmbedding}));
    TRIMTAB_ASSIGN_OR_RETURN(weights.final_norm, LoadNorm(TensorRole::kFinalNorm));
    if (!spec_.tied_embeddings) {
      TRIMTAB_ASSIGN_OR_RETURN(weights.head, LoadLinear({TensorRole::kHead}));
    }
    TRIMTAB_ASSIGN_OR_RETURN(weights.rope_factors, LoadRopeFactors());
    for (layer_ = 0; layer_ < spec_.num_layers(); ++layer_) {
      TRIMTAB_ASSIGN_OR_RETURN(DecoderLayerWeights loaded, LoadLayer());
      weights.layers.push_back(std::move(loaded));
    }
    return weights;
  }

 private:
  // Null: the model has no such tensor. Of the layer at hand.
  const ExpectedTensor* Find(TensorRole role, bool bias = false) const {
    const auto found = tensors_.find(std::tuple(layer_, role, bias));
    return found == tensors_.end() ? nullptr : &found->second;
  }
  const ExpectedTensor& Get(TensorRole role) const {
    const ExpectedTensor* tensor = Find(role);
    TORCH_CHECK(tensor != nullptr, "the layout names no tensor for role ", static_cast<int>(role));
    return *tensor;
  }

  // In some GGUF files the rows of a head are in (pair, half) order, which interleaved rotation wants; rows of ours are
  // in (half, pair) order. Empty: nothing to change.
  std::vector<int64_t> RowOrder(const ExpectedTensor& tensor) const {
    std::vector<int64_t> order;
    const bool has_heads = tensor.role == TensorRole::kQuery || tensor.role == TensorRole::kKey;
    if (format_ != CheckpointFormat::kGguf || !layout_.gguf_interleaves_heads || !has_heads) return order;
    const int64_t half = spec_.head_dim / 2;
    for (int64_t row = 0; row < tensor.shape[0]; ++row) {
      const int64_t head = row / spec_.head_dim, place = row % spec_.head_dim;
      order.push_back(head * spec_.head_dim + place % half * 2 + place / half);
    }
    return order;
  }

  absl::StatusOr<at::Tensor> LoadPlain(const ExpectedTensor& tensor, at::ScalarType type) const {
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor loaded, source_.Load(tensor.name, tensor.shape, type));
    const std::vector<int64_t> order = RowOrder(tensor);
    return order.empty() ? loaded : loaded.index_select(0, at::tensor(order));
  }

  // Undefined when the model has none.
  absl::StatusOr<at::Tensor> LoadNorm(TensorRole role) const {
    const ExpectedTensor* tensor = Find(role);
    if (tensor == nullptr) return at::Tensor();
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor norm, LoadPlain(*tensor, at::kFloat));
    return format_ == CheckpointFormat::kHuggingFace && layout_.norms_less_one ? norm + 1 : norm;
  }

  // The integers of all parts; nullopt unless they are to be kept and each part has some.
  absl::StatusOr<std::optional<std::vector<GroupedWeight>>> LoadGrouped(const std::vector<TensorRole>& parts) const {
    std::vector<GroupedWeight> grouped;
    for (const TensorRole role : parts) {
      if (!form_.grouped) return std::nullopt;
      const ExpectedTensor& part = Get(role);
      TRIMTAB_ASSIGN_OR_RETURN(std::optional<GroupedWeight> weight, source_.LoadGrouped(part.name, part.shape));
      if (!weight) return std::nullopt;
      const std::vector<int64_t> order = RowOrder(part);
      grouped.push_back(order.empty() ? *std::move(weight) : PermuteRows(*weight, order));
    }
    return grouped;
  }

  // The biases of the parts one after another; undefined without.
  absl::StatusOr<at::Tensor> LoadBias(const std::vector<TensorRole>& parts) const {
    std::vector<at::Tensor> biases;
    for (const TensorRole role : parts) {
      const ExpectedTensor* bias = Find(role, /*bias=*/true);
      if (bias == nullptr) return at::Tensor();
      TRIMTAB_ASSIGN_OR_RETURN(biases.emplace_back(), LoadPlain(*bias, at::kFloat));
    }
    return at::cat(biases);
  }

  // The parts below each other.
  absl::StatusOr<Linear> LoadLinear(const std::vector<TensorRole>& parts) const {
    TRIMTAB_ASSIGN_OR_RETURN(at::Tensor bias, LoadBias(parts));
    TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::vector<GroupedWeight>> grouped, LoadGrouped(parts));
    if (grouped) return Linear(StackRows(*grouped), std::move(bias), form_.plain_type);
    std::vector<at::Tensor> plain;
    for (const TensorRole role : parts) {
      TRIMTAB_ASSIGN_OR_RETURN(plain.emplace_back(), LoadPlain(Get(role), form_.plain_type));
    }
    return Linear(plain.size() == 1 ? plain[0] : at::cat(plain, 0), std::move(bias));
  }

  absl::StatusOr<GatedLinear> LoadGated() const {
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor gate_bias, LoadBias({TensorRole::kGate}));
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor up_bias, LoadBias({TensorRole::kUp}));
    if (!gate_bias.defined()) {
      TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::vector<GroupedWeight>> grouped,
                               LoadGrouped({TensorRole::kGate, TensorRole::kUp}));
      if (grouped) return GatedLinear((*grouped)[0], (*grouped)[1], form_.plain_type);
    }
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor gate, LoadPlain(Get(TensorRole::kGate), form_.plain_type));
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor up, LoadPlain(Get(TensorRole::kUp), form_.plain_type));
    return GatedLinear(gate, up, gate_bias, up_bias);
  }

  absl::StatusOr<std::vector<float>> LoadRopeFactors() const {
    std::vector<float> values;
    const ExpectedTensor* tensor = Find(TensorRole::kRopeFactors);
    if (tensor == nullptr || source_.Find(tensor->name) == nullptr) return values;
    TRIMTAB_ASSIGN_OR_RETURN(const at::Tensor factors, LoadPlain(*tensor, at::kFloat));
    values.assign(factors.const_data_ptr<float>(), factors.const_data_ptr<float>() + factors.numel());
    if (!std::all_of(values.begin(), values.end(), [](float value) { return value > 0 && std::isfinite(value); })) {
      return absl::InvalidArgumentError(tensor->name + " holds a factor that is not positive");
    }
    return values;
  }

  absl::StatusOr<DecoderLayerWeights> LoadLayer() const {
    DecoderLayerWeights weights;
    TRIMTAB_ASSIGN_OR_RETURN(weights.attention_norm, LoadNorm(TensorRole::kAttentionNorm));
    TRIMTAB_ASSIGN_OR_RETURN(weights.qkv, LoadLinear({TensorRole::kQuery, TensorRole::kKey, TensorRole::kValue}));
    TRIMTAB_ASSIGN_OR_RETURN(weights.query_norm, LoadNorm(TensorRole::kQueryNorm));
    TRIMTAB_ASSIGN_OR_RETURN(weights.key_norm, LoadNorm(TensorRole::kKeyNorm));
    TRIMTAB_ASSIGN_OR_RETURN(weights.attention_output, LoadLinear({TensorRole::kAttentionOutput}));
    TRIMTAB_ASSIGN_OR_RETURN(weights.post_attention_norm, LoadNorm(TensorRole::kPostAttentionNorm));
    TRIMTAB_ASSIGN_OR_RETURN(weights.mlp_norm, LoadNorm(TensorRole::kMlpNorm));
    TRIMTAB_ASSIGN_OR_RETURN(weights.gate_up, LoadGated());
    TRIMTAB_ASSIGN_OR_RETURN(weights.down, LoadLinear({TensorRole::kDown}));
    TRIMTAB_ASSIGN_OR_RETURN(weights.post_mlp_norm, LoadNorm(TensorRole::kPostMlpNorm));
    return weights;
  }

  const ModelSpec& spec_;
  const CheckpointLayout& layout_;
  const TensorSource& source_;
  const CheckpointFormat format_;
  const WeightForm form_;
  std::map<std::tuple<int64_t, TensorRole, bool>, ExpectedTensor> tensors_;
  int64_t layer_ = -1;  // the layer at hand; -1: none
};

}  // namespace

absl::StatusOr<std::shared_ptr<const CausalModel>> LoadCheckpoint(const ModelSpec& spec, const CheckpointLayout& layout,
                                                                  const TensorSource& source, CheckpointFormat format,
                                                                  WeightForm form) {
  TRIMTAB_ASSIGN_OR_RETURN(DecoderModelWeights weights, CheckpointLoader(spec, layout, source, format, form).Load());
  return MakeDecoderModel(spec, std::move(weights));
}

}  // namespace trimtab
