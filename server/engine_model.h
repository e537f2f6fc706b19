// LoadedModel and its Engine as what the services see.
#ifndef TRIMTAB_SERVER_ENGINE_MODEL_H_
#define TRIMTAB_SERVER_ENGINE_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "models/loaded_model.h"
#include "server/engine/engine.h"
#include "server/rpc/served_model.h"

namespace trimtab {

// Thread-safe: it adds no state of its own.
class EngineModel final : public ServedModel {
 public:
  // `engine` must outlive it. `on_unhealthy` (may be null) is called whenever the engine refuses a request because it
  // has stopped after a fault. `more`: what its maker knows of it, to be shown with it.
  EngineModel(std::shared_ptr<const LoadedModel> model, Engine& engine, int64_t context_length,
              std::vector<std::string> drift_suites, absl::Time load_time, std::function<void()> on_unhealthy = nullptr,
              const v1::Model& more = {});

  const std::string& id() const override { return model_->id; }
  const std::string& fingerprint() const override { return model_->fingerprint; }
  v1::Model Describe() const override;

  absl::StatusOr<std::vector<TokenId>> Encode(const PromptInput& input) const override;
  std::vector<TokenId> EncodeContinuation(std::string_view text) const override;
  const std::vector<TokenId>& end_tokens() const override { return model_->tokenizer->end_of_generation(); }
  std::string TokenText(TokenId token) const override;
  std::unique_ptr<TextDecoder> NewDecoder() const override;

  absl::Status Submit(std::unique_ptr<Request> request) override;
  void Abort(const std::string& id, FinishReason reason) override { engine_.Abort(id, reason); }
  void Resume(const std::string& id) override { engine_.Resume(id); }
  Scorer& scorer() override { return engine_; }

  const std::shared_ptr<const LoadedModel>& loaded() const { return model_; }

 private:
  const std::shared_ptr<const LoadedModel> model_;
  Engine& engine_;
  const std::function<void()> on_unhealthy_;
  v1::Model description_;  // all but the state
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_MODEL_H_
