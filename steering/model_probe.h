// The only door from a steering method to a model: encode pairs, score answers, differentiate, capture, steer as
// serving does. One job's thread; the model itself is shared and const.
#ifndef TRIMTAB_STEERING_MODEL_PROBE_H_
#define TRIMTAB_STEERING_MODEL_PROBE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/layer_tap.h"
#include "models/loaded_model.h"
#include "models/token_layout.h"
#include "server/base/job_context.h"
#include "steering/preference.h"
#include "steering/steering_vector.h"

namespace trimtab {

class SteeringBank;
class TokenForest;
struct SteeringRows;

// The scalar F of a pair (steering.md A2), in nats: log p(preferred) - log p(dispreferred), summed over tokens or each
// divided by its number of tokens; or the preferred answer's alone.
enum class MarginKind { kPrefSum = 1, kPrefMean = 2, kLikelihoodSum = 3, kLikelihoodMean = 4 };
std::string_view MarginKindName(MarginKind kind);  // "pref_sum", ...
inline bool IsPreference(MarginKind kind) { return kind == MarginKind::kPrefSum || kind == MarginKind::kPrefMean; }

// A pair as token ids. Prompt and answers are tokenised apart, so no merge crosses the seam (steering.md A1).
struct EncodedPair {
  std::vector<TokenId> prompt;        // L, with the generation header
  std::vector<TokenId> preferred;     // at least one
  std::vector<TokenId> dispreferred;  // empty only for pairs without a dispreferred answer
  std::vector<int64_t> candidates;    // positions in the prompt that may be masked, ascending; no control tokens
  int64_t tokens() const { return static_cast<int64_t>(prompt.size() + preferred.size() + dispreferred.size()); }
};

// Where activations are compared (steering.md A6).
enum class DeltaPosition { kLastPrompt = 1, kLastResponse = 2, kMeanResponse = 3 };

struct SteeringSetting {
  std::shared_ptr<const SteeringVector> vector;  // null: not steered
  float strength = 0;
  ApplyTo apply_to = ApplyTo::kFromLastPrompt;
};

// What steering costs on neutral text, per token, nats.
struct NeutralCost {
  double kl = 0;                    // KL(unsteered || steered)
  double cross_entropy_change = 0;  // of the next token of the same chunk; above 0: the text is less likely
};

struct ProbeOptions {
  // Rows of one forward pass without gradients: bounds the memory of a job.
  int64_t batch_tokens = 2048;
  // Text that has nothing to do with any objective, in chunks of tokens: what steering costs is measured on it.
  std::vector<std::vector<TokenId>> neutral_text;
};

// BOS where the model wants it before every text.
std::optional<TokenId> TextStart(const Tokenizer& tokenizer);
// `text` as chunks of `chunk_tokens` tokens, at most `max_tokens` in all; what is left over at the end is dropped. Each
// begins with TextStart, which is not counted.
std::vector<std::vector<TokenId>> ChunkText(const Tokenizer& tokenizer, std::string_view text, int64_t chunk_tokens,
                                            int64_t max_tokens);

// Functions that run several forward passes take the job and checkpoint between them; they return its CANCELLED or
// UNAVAILABLE unchanged. Embeddings and masks are float32. c10::Error and std::bad_alloc pass through.
class ModelProbe {
 public:
  ModelProbe(std::shared_ptr<const LoadedModel> model, ProbeOptions options);
  ~ModelProbe();

  const std::string& fingerprint() const { return loaded_->fingerprint; }
  int64_t num_layers() const { return loaded_->model->spec().num_layers(); }
  int64_t hidden_size() const { return loaded_->model->spec().hidden_size; }
  int64_t vocab_size() const { return loaded_->model->spec().vocab_size; }
  int64_t context_length() const { return loaded_->model->spec().context_length; }
  int64_t batch_tokens() const { return options_.batch_tokens; }
  int64_t gradient_tokens() const;  // rows of one pass with gradients, which keeps every layer's activations
  void set_batch_tokens(int64_t tokens) { options_.batch_tokens = tokens; }

  // The prompt of a model without a chat template is one user's turn, read as it is. INVALID_ARGUMENT: an answer
  // without tokens, a conversation that the template refuses, turns without a template; PROMPT_TOO_LONG beyond the
  // model's context.
  absl::StatusOr<EncodedPair> Encode(const PreferencePair& pair) const;
  std::string TokenText(TokenId token) const;
  // BOS where the model wants it before every text.
  std::optional<TokenId> text_start() const { return TextStart(*loaded_->tokenizer); }

  at::Tensor Embed(const std::vector<TokenId>& tokens) const;  // [T, hidden]
  at::Tensor MaskEmbedding() const;                            // [hidden]: the model's mask token
  at::Tensor VocabMeanEmbedding() const;                       // [hidden]: mean over the vocabulary

  // F of `pair` with each of the sets of prompt positions replaced by `mask` [hidden]. Prompt rows before a set's first
  // position are computed once for all sets.
  absl::StatusOr<std::vector<double>> MaskedMargins(const EncodedPair& pair, MarginKind kind,
                                                    const std::vector<std::vector<int64_t>>& sets,
                                                    const at::Tensor& mask, JobContext& job) const;
  // F at prompt embeddings [B, L, hidden] of the pair, in one packed pass [prompt | preferred | dispreferred] each.
  absl::StatusOr<std::vector<double>> Margins(const EncodedPair& pair, MarginKind kind, const at::Tensor& prompts,
                                              JobContext& job) const;
  // Gradient of F with respect to the prompt embeddings, at `prompts` [B, L, hidden]: float32 [B, L, hidden].
  absl::StatusOr<at::Tensor> PromptGradients(const EncodedPair& pair, MarginKind kind, const at::Tensor& prompts,
                                             JobContext& job) const;

  // Activations at a site of each of `layers` for prompts given as embeddings [L_i, hidden], L_i may be 0: float32
  // [count, layers, width], width being hidden, at kAttentionHeads the heads' together (head_width). `responses` (same
  // count) follow the prompts; not read for kLastPrompt. kMeanResponse looks at most at the last `last_tokens` of them.
  // One pass that ends after the deepest layer; the caller keeps the count within batch_tokens.
  at::Tensor CaptureStates(const std::vector<at::Tensor>& prompts, const std::vector<std::vector<TokenId>>& responses,
                           DeltaPosition position, const std::vector<int64_t>& layers, Site site = Site::kBlockOutput,
                           int64_t last_tokens = std::numeric_limits<int64_t>::max()) const;
  int64_t num_heads() const { return loaded_->model->spec().num_heads; }
  int64_t head_dim() const { return loaded_->model->spec().head_dim; }
  int64_t head_width() const { return num_heads() * head_dim(); }
  // What edits of the heads' values, [layers, head_width], add to the attention's output at each of `layers`: float32
  // [layers, hidden]. Through the output projection this is exact and the same for all tokens; where a norm stands
  // behind it, to first order and the mean over the last tokens of `texts`. One pass with gradients; the caller keeps
  // the texts within gradient_tokens.
  at::Tensor FoldHeads(const std::vector<std::vector<TokenId>>& texts, const std::vector<int64_t>& layers,
                       const at::Tensor& edits) const;
  // How F rises per unit of relative strength: at each of `layers` the gradient of each pair's F with respect to v,
  // where every position t that `apply_to` steers gets |h_t| v at `site`, h_t being the activation there, and its norm
  // restored: float32 [pairs, layers, hidden]. One pass with gradients; the caller keeps the pairs within
  // gradient_tokens.
  at::Tensor SteeringGradients(const std::vector<const EncodedPair*>& pairs, MarginKind kind,
                               const std::vector<int64_t>& layers, ApplyTo apply_to,
                               Site site = Site::kBlockOutput) const;

  // F of each pair under each setting, through the bank and tap that serving uses: [pair][setting].
  absl::StatusOr<std::vector<std::vector<double>>> SteeredMargins(const std::vector<const EncodedPair*>& pairs,
                                                                  MarginKind kind,
                                                                  const std::vector<SteeringSetting>& settings,
                                                                  JobContext& job) const;
  bool has_neutral_text() const { return !options_.neutral_text.empty(); }
  int64_t neutral_tokens() const;
  // Mean over every second token of the neutral text of KL(unsteered || steered), nats, with all positions steered but
  // TextStart, which no request steers by default.
  absl::StatusOr<std::vector<double>> NeutralKl(const std::vector<SteeringSetting>& settings, JobContext& job);
  // The same with how much the text's own next tokens lose: of one pass for each setting.
  absl::StatusOr<std::vector<NeutralCost>> NeutralCosts(const std::vector<SteeringSetting>& settings, JobContext& job);

 private:
  // Of every pass: rounded rows would move a margin by as much as masking a token does.
  static constexpr Arithmetic kArithmetic = Arithmetic::kPlain;
  // One log-probability: of `target` after `row`, times `weight`, is added to output `output`.
  struct ScoredToken {
    int64_t row = 0;
    TokenId target = 0;
    int64_t output = 0;
    double weight = 0;
  };
  // Layout and scored tokens of packed sequences [prompt | preferred | dispreferred]; F of pair i goes to output i.
  struct Packed {
    TokenLayout layout;
    std::vector<ScoredToken> scored;
    std::vector<int64_t> prompt_begin, answers_begin, end;  // rows of each pair
  };
  Packed Pack(const std::vector<const EncodedPair*>& pairs, MarginKind kind) const;
  // A sum over `scored` of weight * log-probability that carries the gradient of `hidden` [rows, hidden].
  at::Tensor DifferentiableScore(const at::Tensor& hidden, const std::vector<ScoredToken>& scored) const;
  // The same without gradients, by output.
  void AddScores(const at::Tensor& hidden, const std::vector<ScoredToken>& scored, std::vector<double>& outputs) const;
  // Rows of `forest` through the whole model: [rows, hidden].
  at::Tensor RunForest(const TokenForest& forest, LayerTap& tap) const;
  // F of `pairs` under `settings`, which change nothing before the residual stream that enters block `first` (and is
  // steered there by vectors of the block before): added to outputs[pair * stride + place]. `states`: that stream, not
  // steered, rows as Pack makes them.
  absl::Status AddSteered(const std::vector<const EncodedPair*>& pairs, const Packed& packed, const at::Tensor& states,
                          int64_t first, MarginKind kind, const std::vector<SteeringSetting>& settings,
                          const std::vector<size_t>& places, size_t stride, std::vector<double>& outputs,
                          JobContext& job) const;
  // The neutral text from block `first` on, whose input is `hidden` (first 0: the embeddings).
  at::Tensor RunNeutral(at::Tensor hidden, int64_t first, int64_t num_layers, LayerTap& tap) const;
  // Residual stream of the neutral text after block `layer` (-1: the embeddings), not steered; kept.
  const at::Tensor& NeutralStates(int64_t layer);
  // Rows of the neutral text that are text: all but TextStart.
  std::vector<int64_t> NeutralTextRows() const;
  // Token that follows each row of the neutral text in its chunk; -1 after a chunk's last.
  std::vector<int64_t> NeutralTargets() const;
  NeutralCost MeanCost(const at::Tensor& unsteered, const at::Tensor& steered) const;

  const std::shared_ptr<const LoadedModel> loaded_;
  ProbeOptions options_;
  mutable at::Tensor vocab_mean_;                 // [hidden], once needed
  std::map<int64_t, at::Tensor> neutral_states_;  // by layer [neutral tokens, hidden], once needed
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_MODEL_PROBE_H_
