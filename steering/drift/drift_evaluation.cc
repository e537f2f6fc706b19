#include "steering/drift/drift_evaluation.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

constexpr int kTop = 64;  // tokens of the unsteered distribution that a divergence looks at

struct EncodedQuestion {
  const Question* question = nullptr;
  std::vector<TokenId> prompt;
};

// What the unsteered model said at one position.
struct BaselinePosition {
  std::vector<float> choices;  // log-probabilities of the answer letters; empty in neutral text
  std::vector<TokenId> top;
  std::vector<float> top_logprobs;
  float logprob = 0;  // of the token that stands there
};

// As a JSON value: [choices, top, top_logprobs, logprob].
nlohmann::json ToJson(const std::vector<BaselinePosition>& positions) {
  nlohmann::json list = nlohmann::json::array();
  for (const BaselinePosition& position : positions) {
    list.push_back({position.choices, position.top, position.top_logprobs, position.logprob});
  }
  return list;
}

// Nullopt when `bytes` are not `count` positions.
std::optional<std::vector<BaselinePosition>> FromBytes(const std::string& bytes, size_t count) {
  const nlohmann::json list = nlohmann::json::from_cbor(bytes, true, false);
  if (!list.is_array() || list.size() != count) return std::nullopt;
  std::vector<BaselinePosition> positions;
  try {
    for (const nlohmann::json& entry : list) {
      positions.push_back({entry.at(0).get<std::vector<float>>(), entry.at(1).get<std::vector<TokenId>>(),
                           entry.at(2).get<std::vector<float>>(), entry.at(3).get<float>()});
    }
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
  return positions;
}

BaselinePosition ToBaseline(const ScoredToken& scored) {
  BaselinePosition position{.choices = scored.watched, .logprob = scored.logprob};
  for (const TokenAlternative& alternative : scored.top) {
    position.top.push_back(alternative.token);
    position.top_logprobs.push_back(alternative.logprob);
  }
  return position;
}

// Scores items in batches with progress and checkpoints between them.
class BatchScorer {
 public:
  BatchScorer(Scorer& scorer, JobContext& job, int64_t batch, int64_t total_tokens)
      : scorer_(scorer), job_(job), batch_(batch), total_tokens_(std::max<int64_t>(total_tokens, 1)) {}

  absl::StatusOr<std::vector<ScoreOutcome>> Score(std::vector<ScoreItem> items) {
    std::vector<ScoreOutcome> outcomes;
    for (size_t begin = 0; begin < items.size(); begin += static_cast<size_t>(batch_)) {
      TRIMTAB_RETURN_IF_ERROR(job_.Checkpoint());
      const size_t end = std::min(items.size(), begin + static_cast<size_t>(batch_));
      std::vector<ScoreItem> batch(std::make_move_iterator(items.begin() + static_cast<std::ptrdiff_t>(begin)),
                                   std::make_move_iterator(items.begin() + static_cast<std::ptrdiff_t>(end)));
      int64_t tokens = 0;
      for (const ScoreItem& item : batch) tokens += static_cast<int64_t>(item.tokens.size());
      TRIMTAB_ASSIGN_OR_RETURN(std::vector<ScoreOutcome> scored, scorer_.Score(std::move(batch)));
      std::move(scored.begin(), scored.end(), std::back_inserter(outcomes));
      progress_.completed += static_cast<int64_t>(end - begin);
      Advance(tokens);
    }
    return outcomes;
  }

  // Items that an earlier run has scored.
  void Skip(int64_t items, int64_t tokens) {
    progress_.completed += items;
    Advance(tokens);
  }
  JobProgress& progress() { return progress_; }

 private:
  void Advance(int64_t tokens) {
    done_tokens_ += tokens;
    progress_.phase = JobPhase::kDrift;
    progress_.fraction = std::min(1.0, static_cast<double>(done_tokens_) / static_cast<double>(total_tokens_));
    job_.Report(progress_);
  }

  Scorer& scorer_;
  JobContext& job_;
  const int64_t batch_, total_tokens_;
  int64_t done_tokens_ = 0;
  JobProgress progress_;
};

// The unsteered pass over `items`, from the job's partial results when an earlier run has made it.
absl::StatusOr<std::vector<BaselinePosition>> Baseline(std::string_view key, std::vector<ScoreItem> items,
                                                       size_t positions, BatchScorer& batches, JobContext& job) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::string> saved, job.LoadPartial(key));
  if (saved) {
    if (auto loaded = FromBytes(*saved, positions)) {
      int64_t tokens = 0;
      for (const ScoreItem& item : items) tokens += static_cast<int64_t>(item.tokens.size());
      batches.Skip(static_cast<int64_t>(items.size()), tokens);
      return *std::move(loaded);
    }
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<ScoreOutcome> outcomes, batches.Score(std::move(items)));
  std::vector<BaselinePosition> baseline;
  for (const ScoreOutcome& outcome : outcomes) {
    for (const ScoredToken& scored : outcome.tokens) baseline.push_back(ToBaseline(scored));
  }
  if (baseline.size() != positions) return absl::InternalError("the scorer returned another number of tokens");
  const std::vector<uint8_t> bytes = nlohmann::json::to_cbor(ToJson(baseline));
  TRIMTAB_RETURN_IF_ERROR(
      job.SavePartial(key, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size())));
  return baseline;
}

absl::StatusOr<std::vector<TokenId>> ChoiceTokens(const DriftEncoder& encoder) {
  std::vector<TokenId> tokens;
  for (int64_t choice = 0; choice < kMaxChoices; ++choice) {
    const std::vector<TokenId> encoded = encoder.continuation(QuestionBank::ChoiceText(choice));
    if (encoded.size() != 1) {
      return absl::InvalidArgumentError(
          "this model's tokenizer splits answer letters: multiple-choice drift needs one token per letter");
    }
    tokens.push_back(encoded[0]);
  }
  return tokens;
}

std::vector<std::vector<TokenId>> Chunks(const std::vector<TokenId>& tokens, const DriftOptions& options) {
  std::vector<std::vector<TokenId>> chunks;
  // The first token of each chunk is its prompt: it is not scored.
  int64_t scored = 0;
  for (size_t begin = 0; begin + 1 < tokens.size() && scored < options.max_text_tokens;) {
    const size_t size = std::min({static_cast<size_t>(options.chunk_tokens) + 1, tokens.size() - begin,
                                  static_cast<size_t>(options.max_text_tokens - scored) + 1});
    chunks.emplace_back(tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                        tokens.begin() + static_cast<std::ptrdiff_t>(begin + size));
    scored += static_cast<int64_t>(size) - 1;
    begin += size;
  }
  return chunks;
}

absl::Status CompareQuestions(const std::vector<EncodedQuestion>& questions, const std::vector<TokenId>& letters,
                              const SteeringPlan& plan, BatchScorer& batches, JobContext& job, DriftResult& result) {
  const auto item = [&letters](const EncodedQuestion& encoded) {
    ScoreItem score{.tokens = encoded.prompt, .prompt_length = static_cast<int64_t>(encoded.prompt.size())};
    score.tokens.push_back(letters[static_cast<size_t>(encoded.question->answer)]);
    score.watch = {{letters.begin(), letters.begin() + static_cast<std::ptrdiff_t>(encoded.question->choices.size())}};
    return score;
  };
  std::vector<ScoreItem> items;
  for (const EncodedQuestion& encoded : questions) {
    items.push_back(item(encoded));
    items.back().top = kTop;
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<BaselinePosition> baseline,
                           Baseline("baseline_choices", std::move(items), questions.size(), batches, job));
  items.clear();
  for (size_t i = 0; i < questions.size(); ++i) {
    items.push_back(item(questions[i]));
    items.back().plan = plan;
    items.back().watch[0].insert(items.back().watch[0].end(), baseline[i].top.begin(), baseline[i].top.end());
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<ScoreOutcome> steered, batches.Score(std::move(items)));

  std::vector<ChoiceComparison> comparisons;
  std::map<std::string, std::vector<ChoiceComparison>> by_subject;
  std::vector<double> kl;
  for (size_t i = 0; i < questions.size(); ++i) {
    const std::vector<float>& watched = steered[i].tokens.at(0).watched;
    const auto split = watched.begin() + static_cast<std::ptrdiff_t>(questions[i].question->choices.size());
    comparisons.push_back({questions[i].question->answer, baseline[i].choices, {watched.begin(), split}});
    by_subject[questions[i].question->subject].push_back(comparisons.back());
    kl.push_back(KlWithTail(baseline[i].top_logprobs, std::vector<float>(split, watched.end())));
  }
  result.choices = CompareChoices(comparisons);
  for (const auto& [subject, part] : by_subject) result.subjects[subject] = CompareChoices(part);
  result.mean_kl_vocabulary = Summarize(std::move(kl)).mean;
  return absl::OkStatus();
}

absl::Status CompareText(const std::vector<std::vector<TokenId>>& chunks, const std::vector<TokenId>& start,
                         const SteeringPlan& plan, BatchScorer& batches, JobContext& job, DriftResult& result) {
  if (chunks.empty()) return absl::OkStatus();
  const auto item = [&start](const std::vector<TokenId>& chunk) {
    ScoreItem score{.tokens = start, .prompt_length = static_cast<int64_t>(start.size()) + 1};
    score.tokens.insert(score.tokens.end(), chunk.begin(), chunk.end());
    return score;
  };
  std::vector<ScoreItem> items;
  size_t positions = 0;
  for (const std::vector<TokenId>& chunk : chunks) {
    items.push_back(item(chunk));
    items.back().top = kTop;
    positions += chunk.size() - 1;
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<BaselinePosition> baseline,
                           Baseline("baseline_text", std::move(items), positions, batches, job));
  items.clear();
  size_t next = 0;
  for (const std::vector<TokenId>& chunk : chunks) {
    items.push_back(item(chunk));
    items.back().plan = plan;
    for (size_t i = 1; i < chunk.size(); ++i) items.back().watch.push_back(baseline[next++].top);
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<ScoreOutcome> steered, batches.Score(std::move(items)));
  std::vector<double> kl;
  next = 0;
  for (const ScoreOutcome& outcome : steered) {
    for (const ScoredToken& scored : outcome.tokens) {
      kl.push_back(KlWithTail(baseline[next].top_logprobs, scored.watched));
      result.baseline_cross_entropy -= baseline[next].logprob;
      result.cross_entropy_delta += baseline[next].logprob - scored.logprob;
      ++next;
    }
  }
  result.text_tokens = static_cast<int64_t>(positions);
  result.baseline_cross_entropy /= static_cast<double>(positions);
  result.cross_entropy_delta /= static_cast<double>(positions);
  result.kl_text = Summarize(std::move(kl));
  return absl::OkStatus();
}

void AddWarnings(const SteeringPlan& plan, DriftResult& result) {
  const ChoiceStats& choices = result.choices;
  if (choices.at_chance) {
    result.warnings.push_back(absl::StrFormat(
        "The unsteered model answers these questions no better than by chance (%.1f %% right, chance is %.1f %%): "
        "accuracy says nothing here. Read the divergences (KL) and the cross-entropy.",
        100 * choices.baseline_accuracy, 100 * choices.expected_chance));
  } else if (choices.minimum_detectable_delta > 0.03) {
    result.warnings.push_back(absl::StrFormat(
        "%d questions can only show changes of accuracy of about %.1f points or more: use more questions for less.",
        choices.items, 100 * choices.minimum_detectable_delta));
  }
  if (choices.letter_mass < choices.baseline_letter_mass - 0.05) {
    result.warnings.push_back(absl::StrFormat(
        "The steered model answers with a letter less often (probability %.2f, was %.2f): it loses the format before "
        "it loses knowledge.",
        choices.letter_mass, choices.baseline_letter_mass));
  }
  if (result.kl_text.mean > 0.5) {
    result.warnings.push_back(
        absl::StrFormat("Neutral text diverges by %.2f nats per token: the strength is too high for general use.",
                        result.kl_text.mean));
  }
  for (const PlannedSteering& entry : plan.entries()) {
    if (entry.strength == 0)
      result.warnings.push_back(absl::StrCat(entry.objective, " has strength 0: it does nothing."));
  }
}

}  // namespace

absl::StatusOr<DriftResult> EvaluateDrift(const QuestionBank& bank, std::string_view neutral_text,
                                          const SteeringPlan& plan, const DriftOptions& options,
                                          const DriftEncoder& encoder, Scorer& scorer, JobContext& job) {
  const std::vector<Question> sample = bank.Sample(options.max_items, options.seed);
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<TokenId> letters, ChoiceTokens(encoder));
  std::vector<EncodedQuestion> questions;
  std::map<std::string, std::string> left_out;
  int64_t tokens = 0;
  for (size_t i = 0; i < sample.size(); ++i) {
    TRIMTAB_ASSIGN_OR_RETURN(std::vector<TokenId> prompt, encoder.raw_prompt(bank.Prompt(sample[i], options.shots)));
    const int64_t size = static_cast<int64_t>(prompt.size()) + 1;
    if (size > encoder.max_tokens) {
      if (left_out.size() < 20) {
        left_out[absl::StrCat("question ", i, " (", sample[i].subject, ")")] =
            absl::StrCat("its prompt has ", size - 1, " tokens, the model takes ", encoder.max_tokens - 1);
      }
      continue;
    }
    tokens += size;
    questions.push_back({&sample[i], std::move(prompt)});
  }
  if (questions.empty()) {
    return absl::InvalidArgumentError("every question of the suite is too long for this model");
  }
  std::vector<std::vector<TokenId>> chunks;
  if (options.max_text_tokens > 0) chunks = Chunks(encoder.continuation(neutral_text), options);
  for (const std::vector<TokenId>& chunk : chunks) {
    tokens += static_cast<int64_t>(encoder.text_start.size() + chunk.size());
  }

  BatchScorer batches(scorer, job, std::max<int64_t>(options.batch_items, 1), 2 * tokens);
  batches.progress().total = 2 * static_cast<int64_t>(questions.size() + chunks.size());
  batches.progress().partial_failures = std::move(left_out);
  DriftResult result;
  TRIMTAB_RETURN_IF_ERROR(CompareQuestions(questions, letters, plan, batches, job, result));
  TRIMTAB_RETURN_IF_ERROR(CompareText(chunks, encoder.text_start, plan, batches, job, result));
  AddWarnings(plan, result);
  return result;
}

}  // namespace trimtab
