#include "server/engine_model.h"

#include <utility>

#include "models/tokenizer/incremental_decoder.h"
#include "models/tokenizer/utf8.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/rpc/proto_time.h"

namespace trimtab {
namespace {

class Decoder final : public TextDecoder {
 public:
  // Control tokens are not text; end tokens never come here.
  explicit Decoder(std::shared_ptr<const Tokenizer> tokenizer) : decoder_(std::move(tokenizer), true) {}
  std::string Push(TokenId token) override { return decoder_.Push(token); }
  std::string Flush() override { return decoder_.Flush(); }

 private:
  IncrementalDecoder decoder_;
};

int64_t ParameterCount(const ModelSpec& spec) {
  int64_t count = spec.vocab_size * spec.hidden_size * (spec.tied_embeddings ? 1 : 2) + spec.hidden_size;
  const int64_t query = spec.num_heads * spec.head_dim, key = spec.num_kv_heads * spec.head_dim;
  for (const LayerSpec& layer : spec.layers) {
    count += spec.hidden_size * (2 * query + 2 * key + 3 * spec.intermediate_size + 2);
    if (layer.qkv_bias) count += query + 2 * key;
    if (layer.qk_norm) count += 2 * spec.head_dim;
    if (layer.sandwich_norms) count += 2 * spec.hidden_size;
    if (layer.output_bias) count += spec.hidden_size;
    if (layer.mlp_bias) count += 2 * spec.intermediate_size + spec.hidden_size;
  }
  return count;
}

}  // namespace

EngineModel::EngineModel(std::shared_ptr<const LoadedModel> model, Engine& engine, int64_t context_length,
                         std::vector<std::string> drift_suites, absl::Time load_time,
                         std::function<void()> on_unhealthy, const v1::Model& more)
    : model_(std::move(model)), engine_(engine), on_unhealthy_(std::move(on_unhealthy)), description_(more) {
  const ModelSpec& spec = model_->model->spec();
  description_.set_name(ModelName(model_->id));
  description_.set_display_name(model_->display_name);
  description_.set_architecture(spec.architecture);
  description_.add_modalities(v1::Model::MODALITY_TEXT);
  description_.set_context_length(static_cast<int32_t>(context_length));
  description_.set_num_layers(static_cast<int32_t>(spec.num_layers()));
  description_.set_hidden_size(static_cast<int32_t>(spec.hidden_size));
  description_.set_device("cpu");
  description_.set_dtype(model_->precision);
  description_.set_fingerprint(model_->fingerprint);
  description_.set_vocabulary_size(static_cast<int32_t>(spec.vocab_size));
  description_.set_parameter_count(ParameterCount(spec));
  description_.set_file_dtype(model_->quantization);
  for (std::string& suite : drift_suites) description_.add_drift_suites(std::move(suite));
  *description_.mutable_load_time() = ToProto(load_time);
  description_.set_has_chat_template(model_->prompts->has_chat_template());
}

v1::Model EngineModel::Describe() const {
  v1::Model model = description_;
  model.set_state(engine_.stats().healthy ? v1::Model::STATE_READY : v1::Model::STATE_UNHEALTHY);
  return model;
}

absl::Status EngineModel::Submit(std::unique_ptr<Request> request) {
  const absl::Status status = engine_.Submit(std::move(request));
  if (absl::IsUnavailable(status) && on_unhealthy_ && GetErrorDetail(status).reason == kEngineUnhealthy) {
    on_unhealthy_();
  }
  return status;
}

absl::StatusOr<std::vector<TokenId>> EngineModel::Encode(const PromptInput& input) const {
  TRIMTAB_ASSIGN_OR_RETURN(BuiltPrompt prompt, input.messages.empty() ? model_->prompts->BuildRaw(input.raw)
                                                                      : model_->prompts->BuildChat(input.messages));
  return std::move(prompt.tokens);
}

std::vector<TokenId> EngineModel::EncodeContinuation(std::string_view text) const {
  return model_->prompts->EncodeContinuation(text);
}

std::string EngineModel::TokenText(TokenId token) const {
  return ReplaceInvalidUtf8(model_->tokenizer->TokenBytes(token));
}

std::unique_ptr<TextDecoder> EngineModel::NewDecoder() const { return std::make_unique<Decoder>(model_->tokenizer); }

}  // namespace trimtab
