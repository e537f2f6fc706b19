// Greedy continuations under steering, through the engine that serves. Main thread.
#ifndef TRIMTAB_TOOLS_STUDY_CONTINUATIONS_H_
#define TRIMTAB_TOOLS_STUDY_CONTINUATIONS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "models/loaded_model.h"
#include "server/base/clock.h"
#include "server/engine/engine.h"
#include "steering/model_probe.h"

namespace trimtab {

class Continuations {
 public:
  // The engine's own error, without memory for its cache.
  static absl::StatusOr<std::unique_ptr<Continuations>> Create(std::shared_ptr<const LoadedModel> model);

  // The greedy answers to `prompts` under `setting`, each of at most `max_tokens` tokens.
  absl::StatusOr<std::vector<std::vector<TokenId>>> Run(const std::vector<std::vector<TokenId>>& prompts,
                                                        const SteeringSetting& setting, int64_t max_tokens);

 private:
  explicit Continuations(std::shared_ptr<const LoadedModel> model) : model_(std::move(model)) {}
  const std::shared_ptr<const LoadedModel> model_;
  const RealClock clock_;
  int64_t next_id_ = 0;
  std::unique_ptr<Engine> engine_;
};

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_STUDY_CONTINUATIONS_H_
