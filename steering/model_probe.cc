#include "steering/model_probe.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/attention/dense_attention.h"
#include "models/tokenizer/utf8.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "steering/probe_taps.h"
#include "steering/token_tree.h"

namespace trimtab {
namespace {

constexpr int64_t kLogitRows = 256;    // rows of logits held at a time: 256 * vocab floats
constexpr int64_t kVocabRows = 8192;   // embeddings averaged at a time
constexpr int64_t kMaxTreeRows = 768;  // attention's cost and mask grow with the square
constexpr int64_t kGradientShare = 4;  // activations kept for the backward pass are this much larger, and more

at::Tensor TokenTensor(const std::vector<TokenId>& tokens) { return at::tensor(tokens).to(at::kLong); }

}  // namespace

std::string_view MarginKindName(MarginKind kind) {
  switch (kind) {
    case MarginKind::kPrefSum:
      return "pref_sum";
    case MarginKind::kPrefMean:
      return "pref_mean";
    case MarginKind::kLikelihoodSum:
      return "likelihood_sum";
    case MarginKind::kLikelihoodMean:
      return "likelihood_mean";
  }
  return "unknown";
}

namespace {

// Without a chat template there is nothing around a prompt: the text of its only turn is what the model reads.
absl::StatusOr<BuiltPrompt> BuildPrompt(const PromptBuilder& prompts, const std::vector<ChatMessage>& turns) {
  const bool raw = !prompts.has_chat_template() && turns.size() == 1 && turns.front().role == "user";
  return raw ? prompts.BuildRaw(turns.front().text) : prompts.BuildChat(turns);
}

}  // namespace

std::optional<TokenId> TextStart(const Tokenizer& tokenizer) {
  return tokenizer.add_bos() ? tokenizer.bos() : std::nullopt;
}

std::vector<std::vector<TokenId>> ChunkText(const Tokenizer& tokenizer, std::string_view text, int64_t chunk_tokens,
                                            int64_t max_tokens) {
  // Four bytes a token and more is usual; a slice of the text is enough and keeps tokenising short.
  const std::vector<TokenId> tokens =
      tokenizer.Encode(text.substr(0, static_cast<size_t>(max_tokens) * 16), Tokenizer::SpecialTokens::kPlain);
  std::vector<std::vector<TokenId>> chunks;
  const int64_t usable = std::min<int64_t>(max_tokens, static_cast<int64_t>(tokens.size()));
  const std::optional<TokenId> start = TextStart(tokenizer);
  for (int64_t begin = 0; begin + chunk_tokens <= usable; begin += chunk_tokens) {
    std::vector<TokenId>& chunk = chunks.emplace_back();
    if (start) chunk.push_back(*start);
    chunk.insert(chunk.end(), tokens.begin() + begin, tokens.begin() + begin + chunk_tokens);
  }
  return chunks;
}

ModelProbe::ModelProbe(std::shared_ptr<const LoadedModel> model, ProbeOptions options)
    : loaded_(std::move(model)), options_(std::move(options)) {}

ModelProbe::~ModelProbe() = default;

int64_t ModelProbe::gradient_tokens() const { return std::max<int64_t>(options_.batch_tokens / kGradientShare, 1); }

absl::StatusOr<EncodedPair> ModelProbe::Encode(const PreferencePair& pair) const {
  TRIMTAB_ASSIGN_OR_RETURN(BuiltPrompt prompt, BuildPrompt(*loaded_->prompts, pair.prompt));
  EncodedPair encoded{.prompt = std::move(prompt.tokens),
                      .preferred = loaded_->prompts->EncodeContinuation(pair.preferred),
                      .dispreferred = loaded_->prompts->EncodeContinuation(pair.dispreferred)};
  if (encoded.prompt.empty() || encoded.preferred.empty() ||
      (encoded.dispreferred.empty() && !pair.dispreferred.empty())) {
    return absl::InvalidArgumentError("the prompt or an answer has no tokens");
  }
  const int64_t longest =
      static_cast<int64_t>(encoded.prompt.size() + std::max(encoded.preferred.size(), encoded.dispreferred.size()));
  if (longest > context_length()) {
    return ReasonError(
        absl::StatusCode::kInvalidArgument, kPromptTooLong,
        absl::StrCat("prompt and answer have ", longest, " tokens, the model's context ", context_length()),
        {{"tokens", absl::StrCat(longest)}, {"limit", absl::StrCat(context_length())}});
  }
  for (size_t i = 0; i < encoded.prompt.size(); ++i) {
    if (prompt.from_user[i] && !loaded_->tokenizer->IsSpecial(encoded.prompt[i])) {
      encoded.candidates.push_back(static_cast<int64_t>(i));
    }
  }
  return encoded;
}

std::string ModelProbe::TokenText(TokenId token) const {
  // As inside a text: with the space that SentencePiece leaves out at its beginning.
  return ReplaceInvalidUtf8(loaded_->tokenizer->TokenBytes(token), loaded_->tokenizer->broken_utf8());
}

at::Tensor ModelProbe::Embed(const std::vector<TokenId>& tokens) const {
  at::NoGradGuard no_grad;
  return loaded_->model->Embed(TokenTensor(tokens));
}

at::Tensor ModelProbe::MaskEmbedding() const { return Embed({loaded_->mask_token})[0]; }

at::Tensor ModelProbe::VocabMeanEmbedding() const {
  if (!vocab_mean_.defined()) {
    at::NoGradGuard no_grad;
    at::Tensor sum = at::zeros({hidden_size()}, at::kDouble);
    for (int64_t begin = 0; begin < vocab_size(); begin += kVocabRows) {
      const int64_t end = std::min(begin + kVocabRows, vocab_size());
      sum += loaded_->model->Embed(at::arange(begin, end, at::kLong)).to(at::kDouble).sum(0);
    }
    vocab_mean_ = (sum / static_cast<double>(vocab_size())).to(at::kFloat);
  }
  return vocab_mean_;
}

ModelProbe::Packed ModelProbe::Pack(const std::vector<const EncodedPair*>& pairs, MarginKind kind) const {
  Packed packed;
  std::vector<SequenceSpan> spans;
  int64_t row = 0;
  for (size_t p = 0; p < pairs.size(); ++p) {
    const EncodedPair& pair = *pairs[p];
    const int64_t prompt_end = row + static_cast<int64_t>(pair.prompt.size());
    packed.prompt_begin.push_back(row);
    packed.answers_begin.push_back(prompt_end);
    SequenceSpan span;
    int64_t begin = prompt_end;
    // The last token of an answer predicts nothing that is scored, so it gets no row.
    const auto add_answer = [&](const std::vector<TokenId>& answer, double sign) {
      const double weight =
          kind == MarginKind::kPrefMean || kind == MarginKind::kLikelihoodMean ? sign / answer.size() : sign;
      for (size_t t = 0; t < answer.size(); ++t) {
        const int64_t from = t == 0 ? prompt_end - 1 : begin + static_cast<int64_t>(t) - 1;
        packed.scored.push_back({from, answer[t], static_cast<int64_t>(p), weight});
      }
      const auto rows = static_cast<int64_t>(answer.size()) - 1;
      if (rows > 0) span.branches.push_back(rows);
      begin += rows;
    };
    add_answer(pair.preferred, 1);
    if (IsPreference(kind) && !pair.dispreferred.empty()) add_answer(pair.dispreferred, -1);
    span.length = begin - row;
    spans.push_back(std::move(span));
    row = begin;
    packed.end.push_back(row);
  }
  packed.layout = TokenLayout::Dense(std::move(spans));
  return packed;
}

namespace {

// Token ids of the rows that Pack makes for a pair's answers.
std::vector<TokenId> AnswerRows(const EncodedPair& pair, MarginKind kind) {
  std::vector<TokenId> tokens(pair.preferred.begin(), pair.preferred.end() - 1);
  if (IsPreference(kind) && !pair.dispreferred.empty()) {
    tokens.insert(tokens.end(), pair.dispreferred.begin(), pair.dispreferred.end() - 1);
  }
  return tokens;
}

}  // namespace

at::Tensor ModelProbe::DifferentiableScore(const at::Tensor& hidden, const std::vector<ScoredToken>& scored) const {
  std::vector<int64_t> rows, targets;
  std::vector<double> weights;
  for (const ScoredToken& token : scored) {
    rows.push_back(token.row);
    targets.push_back(token.target);
    weights.push_back(token.weight);
  }
  const at::Tensor logits = loaded_->model->Logits(hidden.index_select(0, at::tensor(rows)), nullptr, kArithmetic);
  const at::Tensor chosen = at::log_softmax(logits, -1).gather(1, at::tensor(targets).unsqueeze(1)).squeeze(1);
  return (chosen * at::tensor(weights).to(at::kFloat)).sum();
}

void ModelProbe::AddScores(const at::Tensor& hidden, const std::vector<ScoredToken>& scored,
                           std::vector<double>& outputs) const {
  for (size_t begin = 0; begin < scored.size(); begin += kLogitRows) {
    const size_t end = std::min(begin + static_cast<size_t>(kLogitRows), scored.size());
    std::vector<int64_t> rows, targets;
    for (size_t i = begin; i < end; ++i) {
      rows.push_back(scored[i].row);
      targets.push_back(scored[i].target);
    }
    const at::Tensor logits = loaded_->model->Logits(hidden.index_select(0, at::tensor(rows)), nullptr, kArithmetic);
    const at::Tensor chosen = (logits.gather(1, at::tensor(targets).unsqueeze(1)).squeeze(1) - logits.logsumexp({1}))
                                  .to(at::kDouble)
                                  .contiguous();
    for (size_t i = begin; i < end; ++i) {
      outputs[scored[i].output] += scored[i].weight * chosen.data_ptr<double>()[i - begin];
    }
  }
}

at::Tensor ModelProbe::RunForest(const TokenForest& forest, LayerTap& tap) const {
  const TokenLayout layout = forest.Layout();
  TreeAttention attention(forest, loaded_->model->dtype());
  return loaded_->model->Forward(forest.Embeddings(),
                                 {.layout = layout, .attention = attention, .tap = tap, .arithmetic = kArithmetic});
}

absl::StatusOr<std::vector<double>> ModelProbe::MaskedMargins(const EncodedPair& pair, MarginKind kind,
                                                              const std::vector<std::vector<int64_t>>& sets,
                                                              const at::Tensor& mask, JobContext& job) const {
  at::NoGradGuard no_grad;
  const auto length = static_cast<int64_t>(pair.prompt.size());
  const at::Tensor prompt = Embed(pair.prompt);
  const at::Tensor answers[2] = {
      Embed({pair.preferred.begin(), pair.preferred.end() - 1}),
      pair.dispreferred.empty() ? at::Tensor() : Embed({pair.dispreferred.begin(), pair.dispreferred.end() - 1})};
  const std::vector<TokenId>* tokens[2] = {&pair.preferred, &pair.dispreferred};
  const int num_answers = IsPreference(kind) && !pair.dispreferred.empty() ? 2 : 1;
  const bool mean = kind == MarginKind::kPrefMean || kind == MarginKind::kLikelihoodMean;
  const int64_t max_rows = std::min(options_.batch_tokens, std::max(kMaxTreeRows, 2 * pair.tokens()));

  std::vector<double> outputs(sets.size(), 0.0);
  size_t next = 0;
  while (next < sets.size()) {
    TokenForest forest;
    std::vector<ScoredToken> scored;
    const TokenForest::Place root = forest.Add({}, prompt);
    const size_t first = next;
    for (; next < sets.size(); ++next) {
      const std::vector<int64_t>& set = sets[next];
      const int64_t from = set.empty() ? length : *std::min_element(set.begin(), set.end());
      if (next > first && forest.num_rows() + length - from + pair.tokens() - length > max_rows) break;
      at::Tensor changed = prompt.narrow(0, from, length - from).clone();
      for (int64_t position : set) changed[position - from].copy_(mask);
      const TokenForest::Place end = forest.Add({root.segment, from}, changed);
      for (int answer = 0; answer < num_answers; ++answer) {
        const TokenForest::Place answer_end = forest.Add(end, answers[answer]);
        const double weight = (answer == 0 ? 1.0 : -1.0) / (mean ? static_cast<double>(tokens[answer]->size()) : 1.0);
        for (size_t t = 0; t < tokens[answer]->size(); ++t) {
          const int64_t row =
              t == 0 ? forest.last_row(end) : forest.last_row({answer_end.segment, static_cast<int64_t>(t)});
          scored.push_back({row, (*tokens[answer])[t], static_cast<int64_t>(next), weight});
        }
      }
    }
    IdentityTap tap;
    AddScores(RunForest(forest, tap), scored, outputs);
    TRIMTAB_RETURN_IF_ERROR(job.Checkpoint());
  }
  return outputs;
}

absl::StatusOr<std::vector<double>> ModelProbe::Margins(const EncodedPair& pair, MarginKind kind,
                                                        const at::Tensor& prompts, JobContext& job) const {
  at::NoGradGuard no_grad;
  const at::Tensor answers = Embed(AnswerRows(pair, kind));
  std::vector<double> outputs(static_cast<size_t>(prompts.size(0)), 0.0);
  const int64_t per_batch = std::max<int64_t>(1, options_.batch_tokens / pair.tokens());
  for (int64_t begin = 0; begin < prompts.size(0); begin += per_batch) {
    const int64_t count = std::min(per_batch, prompts.size(0) - begin);
    Packed packed = Pack(std::vector<const EncodedPair*>(static_cast<size_t>(count), &pair), kind);
    std::vector<at::Tensor> rows;
    for (int64_t i = 0; i < count; ++i) rows.insert(rows.end(), {prompts[begin + i], answers});
    DenseAttention attention;
    IdentityTap tap;
    const at::Tensor hidden = loaded_->model->Forward(
        at::cat(rows), {.layout = packed.layout, .attention = attention, .tap = tap, .arithmetic = kArithmetic});
    for (ScoredToken& token : packed.scored) token.output += begin;
    AddScores(hidden, packed.scored, outputs);
    TRIMTAB_RETURN_IF_ERROR(job.Checkpoint());
  }
  return outputs;
}

absl::StatusOr<at::Tensor> ModelProbe::PromptGradients(const EncodedPair& pair, MarginKind kind,
                                                       const at::Tensor& prompts, JobContext& job) const {
  at::AutoGradMode grad(true);
  const at::Tensor answers = Embed(AnswerRows(pair, kind));
  const int64_t per_batch = std::max<int64_t>(1, gradient_tokens() / pair.tokens());
  std::vector<at::Tensor> gradients;
  for (int64_t begin = 0; begin < prompts.size(0); begin += per_batch) {
    const int64_t count = std::min(per_batch, prompts.size(0) - begin);
    const Packed packed = Pack(std::vector<const EncodedPair*>(static_cast<size_t>(count), &pair), kind);
    const at::Tensor leaf = prompts.narrow(0, begin, count).detach().clone().requires_grad_(true);
    std::vector<at::Tensor> rows;
    for (int64_t i = 0; i < count; ++i) rows.insert(rows.end(), {leaf[i], answers});
    DenseAttention attention;
    IdentityTap tap;
    const at::Tensor hidden = loaded_->model->Forward(
        at::cat(rows), {.layout = packed.layout, .attention = attention, .tap = tap, .arithmetic = kArithmetic});
    const at::Tensor score = DifferentiableScore(hidden, packed.scored);
    gradients.push_back(torch::autograd::grad({score}, {leaf})[0].to(at::kFloat));
    TRIMTAB_RETURN_IF_ERROR(job.Checkpoint());
  }
  return at::cat(gradients);
}

at::Tensor ModelProbe::SteeringGradients(const std::vector<const EncodedPair*>& pairs, MarginKind kind,
                                         const std::vector<int64_t>& layers, ApplyTo apply_to, Site site) const {
  at::AutoGradMode grad(true);
  const Packed packed = Pack(pairs, kind);
  std::vector<at::Tensor> embeddings;
  std::vector<int64_t> rows, groups;
  for (size_t p = 0; p < pairs.size(); ++p) {
    std::vector<TokenId> tokens = pairs[p]->prompt;
    const std::vector<TokenId> answers = AnswerRows(*pairs[p], kind);
    tokens.insert(tokens.end(), answers.begin(), answers.end());
    embeddings.push_back(Embed(tokens));
    const int64_t first = apply_to == ApplyTo::kAll              ? packed.prompt_begin[p]
                          : apply_to == ApplyTo::kFromLastPrompt ? packed.answers_begin[p] - 1
                                                                 : packed.answers_begin[p];
    for (int64_t row = first; row < packed.end[p]; ++row) {
      rows.push_back(row);
      groups.push_back(static_cast<int64_t>(p));
    }
  }
  DenseAttention attention;
  SteeringGradientTap tap(layers, at::tensor(rows), at::tensor(groups), static_cast<int64_t>(pairs.size()),
                          hidden_size(), site);
  const at::Tensor hidden = loaded_->model->Forward(
      at::cat(embeddings), {.layout = packed.layout, .attention = attention, .tap = tap, .arithmetic = kArithmetic});
  const at::Tensor score = DifferentiableScore(hidden, packed.scored);
  return at::stack(torch::autograd::grad({score}, tap.leaves()), 1);
}

}  // namespace trimtab
