#include "steering/drift/drift_evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace trimtab {
namespace {

using ::testing::HasSubstr;

constexpr int kVocabulary = 256;

// A language model over bytes whose distribution depends on the last byte, and which steering tilts towards "C" by its
// strength: a Scorer that is easy to compute by hand.
class ByteScorer final : public Scorer {
 public:
  absl::StatusOr<std::vector<ScoreOutcome>> Score(std::vector<ScoreItem> items) override {
    std::vector<ScoreOutcome> outcomes;
    for (const ScoreItem& item : items) {
      ++scored_items;
      last_item = item;
      ScoreOutcome outcome;
      for (size_t at = static_cast<size_t>(item.prompt_length); at < item.tokens.size(); ++at) {
        const std::vector<float> logs = Logs(item, at);
        ScoredToken scored{.token = item.tokens[at], .logprob = logs[static_cast<size_t>(item.tokens[at])]};
        // Not sorted, but with every letter: the merged rest then has one ratio and KlWithTail is exact.
        for (int top = 32; top < 32 + item.top; ++top) scored.top.push_back({top, logs[static_cast<size_t>(top)]});
        const size_t position = at - static_cast<size_t>(item.prompt_length);
        if (!item.watch.empty()) {
          for (TokenId token : item.watch.at(position)) scored.watched.push_back(logs[static_cast<size_t>(token)]);
        }
        outcome.tokens.push_back(std::move(scored));
      }
      outcomes.push_back(std::move(outcome));
    }
    return outcomes;
  }

  int scored_items = 0;
  ScoreItem last_item;

 private:
  static std::vector<float> Logs(const ScoreItem& item, size_t at) {
    double tilt = 0;
    for (const PlannedSteering& entry : item.plan.entries()) {
      if (static_cast<int64_t>(at) > entry.steer_from(item.prompt_length)) tilt += entry.strength;
    }
    double total = 0;
    std::vector<double> weights(kVocabulary);
    for (int token = 0; token < kVocabulary; ++token) {
      weights[token] = 1 + (token == 'B' ? 40 : 0) + (token == item.tokens[at - 1] ? 5 : 0);
      if (token == 'C') weights[token] *= std::exp(tilt);
      total += weights[token];
    }
    std::vector<float> logs;
    for (double weight : weights) logs.push_back(static_cast<float>(std::log(weight / total)));
    return logs;
  }
};

class FakeJob final : public JobContext {
 public:
  absl::Status Checkpoint() override {
    return checkpoints_left-- > 0 ? absl::OkStatus() : absl::CancelledError("cancelled");
  }
  void Report(const JobProgress& progress) override {
    EXPECT_GE(progress.fraction, last.fraction);
    last = progress;
  }
  absl::Status SavePartial(std::string_view key, std::string_view bytes) override {
    partials[std::string(key)] = bytes;
    return absl::OkStatus();
  }
  absl::StatusOr<std::optional<std::string>> LoadPartial(std::string_view key) override {
    const auto found = partials.find(std::string(key));
    return found == partials.end() ? std::nullopt : std::optional(found->second);
  }

  int checkpoints_left = 1000;
  JobProgress last;
  std::map<std::string, std::string> partials;
};

// One byte, one token; " A" is the byte 'A'.
DriftEncoder ByteEncoder(int64_t max_tokens = 4096) {
  const auto bytes = [](std::string_view text) {
    std::vector<TokenId> tokens;
    for (size_t i = 0; i < text.size(); ++i) {
      const bool letter = text[i] == ' ' && text.size() == 2;
      tokens.push_back(static_cast<unsigned char>(letter ? text[++i] : text[i]));
    }
    return tokens;
  };
  return {[bytes](std::string_view text) { return absl::StatusOr<std::vector<TokenId>>(bytes(text)); }, bytes,
          max_tokens};
}

SteeringPlan PlanOf(float strength) {
  SteeringVectorSpec spec{
      .model_fingerprint = "f", .method = "test", .hidden_size = 2, .layers = {{.layer = 0, .direction = {1, 0}}}};
  auto vector = SteeringVector::Create(spec);
  EXPECT_TRUE(vector.ok()) << vector.status();
  return SteeringPlan({{*vector, "models/m/objectives/o", 1, strength, ApplyTo::kFromLastPrompt}});
}

QuestionBank Bank() {
  std::string text;
  for (int i = 0; i < 20; ++i) {
    text += R"({"subject":"s)" + std::to_string(i % 2) + R"(","question":"q)" + std::to_string(i) +
            R"(","choices":["a","b","c","d"],"answer":)" + std::to_string(i < 15 ? 1 : 2) + "}\n";
  }
  return *QuestionBank::FromJsonLines(text, "", "bank");
}

std::string Neutral() { return std::string(300, 'x'); }

TEST(EvaluateDrift, StrengthZeroMovesNothing) {
  ByteScorer scorer;
  FakeJob job;
  const auto result = EvaluateDrift(Bank(), Neutral(), PlanOf(0), {}, ByteEncoder(), scorer, job);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->choices.items, 20);
  EXPECT_DOUBLE_EQ(result->choices.baseline_accuracy, .75);
  EXPECT_EQ(result->choices.flip_rate, 0);
  EXPECT_NEAR(result->choices.mean_kl_choice, 0, 1e-9);
  EXPECT_NEAR(result->kl_text.mean, 0, 1e-6);
  EXPECT_NEAR(result->cross_entropy_delta, 0, 1e-9);
  EXPECT_DOUBLE_EQ(job.last.fraction, 1);
  EXPECT_EQ(job.last.completed, job.last.total);
}

TEST(EvaluateDrift, MeasuresTheTilt) {
  ByteScorer scorer;
  FakeJob job;
  // exp(5) * 1 > 41: every question flips from B to C.
  const auto result = EvaluateDrift(Bank(), Neutral(), PlanOf(5), {}, ByteEncoder(), scorer, job);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->choices.right_to_wrong, 15);
  EXPECT_EQ(result->choices.wrong_to_right, 5);
  EXPECT_DOUBLE_EQ(result->choices.choice_change_rate, 1);
  EXPECT_EQ(result->subjects.size(), 2u);
  // By hand: the distribution after ':' is 1 each, 41 for B, 6 for ':', total 301; after 'x' the same with 'x'.
  const double z0 = 301, tilted = std::exp(5.0), z1 = z0 - 1 + tilted;
  const double kl = (300 / z0) * std::log(z1 / z0) + (1 / z0) * std::log((1 / z0) / (tilted / z1));
  EXPECT_NEAR(result->kl_text.mean, kl, 1e-5);
  EXPECT_EQ(result->text_tokens, 297);  // three chunks, the first token of each is its prompt
  EXPECT_NEAR(result->cross_entropy_delta, std::log(z1 / z0), 1e-5);
  EXPECT_THAT(result->warnings, ::testing::Not(::testing::IsEmpty()));
}

TEST(EvaluateDrift, ResumesWithoutScoringTheBaselineAgain) {
  ByteScorer whole;
  FakeJob uninterrupted;
  const auto expected = EvaluateDrift(Bank(), Neutral(), PlanOf(2), {}, ByteEncoder(), whole, uninterrupted);
  ASSERT_TRUE(expected.ok());
  ByteScorer scorer;
  FakeJob job;
  job.checkpoints_left = 3;  // two batches of the baseline, one of the steered pass
  EXPECT_EQ(EvaluateDrift(Bank(), Neutral(), PlanOf(2), {}, ByteEncoder(), scorer, job).status().code(),
            absl::StatusCode::kCancelled);
  scorer.scored_items = 0;
  job.checkpoints_left = 1000;
  job.last = {};
  const auto resumed = EvaluateDrift(Bank(), Neutral(), PlanOf(2), {}, ByteEncoder(), scorer, job);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(scorer.scored_items, 20 + 3 + 3);
  EXPECT_EQ(resumed->choices.mean_kl_choice, expected->choices.mean_kl_choice);
  EXPECT_EQ(resumed->kl_text.mean, expected->kl_text.mean);
}

TEST(EvaluateDrift, DamagedPartialResultsAreMadeAgain) {
  ByteScorer scorer;
  FakeJob job;
  job.partials["baseline_choices"] = "rubbish";
  job.partials["baseline_text"] = std::string("\x81\x01", 2);
  const auto result = EvaluateDrift(Bank(), Neutral(), PlanOf(2), {}, ByteEncoder(), scorer, job);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(scorer.scored_items, 2 * (20 + 3));
}

TEST(EvaluateDrift, LongQuestionsAreLeftOutAndNamed) {
  ByteScorer scorer;
  FakeJob job;
  const std::string text = R"({"subject":"s","question":")" + std::string(500, 'q') +
                           R"(","choices":["a","b"],"answer":0})" + "\n" +
                           R"({"subject":"s","question":"q","choices":["a","b"],"answer":0})";
  const QuestionBank bank = *QuestionBank::FromJsonLines(text, "", "bank");
  const auto result = EvaluateDrift(bank, "", PlanOf(1), {}, ByteEncoder(300), scorer, job);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->choices.items, 1);
  EXPECT_EQ(result->text_tokens, 0);
  EXPECT_EQ(job.last.partial_failures.size(), 1u);
  const auto none = EvaluateDrift(bank, "", PlanOf(1), {}, ByteEncoder(20), scorer, job);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("too long"));
}

TEST(EvaluateDrift, TextBeginsAsTheModelWants) {
  ByteScorer scorer, plain_scorer;
  FakeJob job, plain_job;
  DriftEncoder encoder = ByteEncoder();
  encoder.text_start = {7};
  const auto result = EvaluateDrift(Bank(), Neutral(), PlanOf(5), {}, encoder, scorer, job);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(scorer.last_item.tokens.front(), 7);
  EXPECT_EQ(scorer.last_item.prompt_length, 2);
  // The same tokens are scored and steered as without.
  const auto plain = EvaluateDrift(Bank(), Neutral(), PlanOf(5), {}, ByteEncoder(), plain_scorer, plain_job);
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(result->text_tokens, plain->text_tokens);
  EXPECT_EQ(result->kl_text.mean, plain->kl_text.mean);
}

TEST(EvaluateDrift, RefusesATokenizerThatSplitsLetters) {
  ByteScorer scorer;
  FakeJob job;
  DriftEncoder encoder = ByteEncoder();
  encoder.continuation = [](std::string_view text) { return std::vector<TokenId>(text.size(), 1); };
  EXPECT_EQ(EvaluateDrift(Bank(), "", PlanOf(1), {}, encoder, scorer, job).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace trimtab
