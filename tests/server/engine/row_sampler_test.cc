#include "server/engine/row_sampler.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <random>
#include <vector>

#include "models/kernels/thread_team.h"
#include "server/base/error.h"

namespace trimtab {
namespace {

constexpr int64_t kVocab = 5000;
constexpr int kRows = 23;

std::vector<float> RandomLogits(uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(kVocab);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

class RowSamplerTest : public testing::Test {
 protected:
  RowSamplerTest() {
    for (int i = 0; i < kRows; ++i) {
      logits_.push_back(RandomLogits(i));
      Request& request = requests_[i];
      request.tokens = {1, 2, 3, 4};
      request.prompt_length = 4;
      request.sampling.temperature = i % 3 == 0 ? 0 : 1;
      request.sampling.top_p = i % 2 == 0 ? 0.8f : 1;
      request.sampling.repetition_penalty = i % 5 == 0 ? 1.3f : 1;
      request.sampling.logprobs = i % 4;
      request.sampling.seed = i;
      if (i % 7 == 6) {
        request.score = true;
        request.prompt_length = 2;
        request.score_top = 3;
        request.score_watch = {{1}, {5, 6}};
      }
    }
  }

  LogitsRow Row(int i) const {
    LogitsRow row;
    row.logits = logits_[i];
    row.request = &requests_[i];
    row.position = i % 2;
    row.seen = requests_[i].tokens;
    return row;
  }
  std::vector<LogitsRow> Rows() const {
    std::vector<LogitsRow> rows;
    for (int i = 0; i < kRows; ++i) rows.push_back(Row(i));
    return rows;
  }

  std::vector<std::vector<float>> logits_;
  std::array<Request, kRows> requests_;
};

// Bit for bit: what a request gets must not depend on its company.
TEST_F(RowSamplerTest, EachRowIsAsAloneWhateverTheThreads) {
  ThreadTeam team(3);
  for (ThreadTeam* threads : {static_cast<ThreadTeam*>(nullptr), &team}) {
    const ScopedTeam scope(threads);
    RowSampler sampler(kVocab);
    for (int repeat = 0; repeat < 3; ++repeat) {
      std::vector<LogitsRow> rows = Rows();
      sampler.Run(absl::MakeSpan(rows));
      for (int i = 0; i < kRows; ++i) {
        ASSERT_TRUE(rows[i].status.ok());
        Sampler alone(kVocab);
        if (requests_[i].score) {
          const ScoredToken expected =
              *alone.Score(logits_[i], requests_[i].tokens[2 + i % 2], 3, requests_[i].score_watch[i % 2]);
          EXPECT_EQ(rows[i].scored.token, expected.token);
          EXPECT_EQ(rows[i].scored.logprob, expected.logprob);
          EXPECT_EQ(rows[i].scored.watched, expected.watched);
          EXPECT_EQ(rows[i].scored.top.size(), 3);
        } else {
          const OutputToken expected = *alone.Sample(logits_[i], requests_[i].sampling, requests_[i].tokens, i % 2);
          EXPECT_EQ(rows[i].token.token, expected.token) << i;
          EXPECT_EQ(rows[i].token.logprob, expected.logprob) << i;
          EXPECT_EQ(rows[i].token.top.size(), expected.top.size()) << i;
        }
      }
    }
  }
}

TEST_F(RowSamplerTest, ARowThatIsNotFiniteFailsAlone) {
  logits_[4][17] = std::numeric_limits<float>::quiet_NaN();
  std::vector<LogitsRow> rows = Rows();
  RowSampler(kVocab).Run(absl::MakeSpan(rows));
  for (int i = 0; i < kRows; ++i) EXPECT_EQ(rows[i].status.ok(), i != 4);
  EXPECT_EQ(GetErrorDetail(rows[4].status).reason, kNonFinite);
}

TEST_F(RowSamplerTest, NoRowsAreNoWork) { RowSampler(kVocab).Run({}); }

}  // namespace
}  // namespace trimtab
