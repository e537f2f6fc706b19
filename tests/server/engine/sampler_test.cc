#include "server/engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "server/base/error.h"
#include "server/engine/random.h"

namespace trimtab {
namespace {

std::vector<float> RandomLogits(int64_t size, uint32_t seed, float scale = 3) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// The straightforward way: sorts everything. Probability of each token that may be drawn.
std::map<TokenId, double> ReferenceDistribution(std::vector<float> logits, const SamplingParams& params,
                                                const std::vector<TokenId>& seen) {
  for (TokenId id : std::set<TokenId>(seen.begin(), seen.end())) {
    logits[id] = logits[id] > 0 ? logits[id] / params.repetition_penalty : logits[id] * params.repetition_penalty;
  }
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) { return logits[a] > logits[b]; });
  if (params.temperature == 0) return {{order[0], 1.0}};
  if (params.top_k > 0) order.resize(std::min<size_t>(order.size(), params.top_k));
  const auto weight = [&](TokenId id) {
    return std::exp((static_cast<double>(logits[id]) - logits[order[0]]) / params.temperature);
  };
  while (weight(order.back()) < params.min_p) order.pop_back();
  double total = 0, kept = 0;
  for (TokenId id : order) total += weight(id);
  size_t count = 0;
  while (count < order.size() && kept < params.top_p * total * (1 - 1e-7)) kept += weight(order[count++]);
  order.resize(count);
  std::map<TokenId, double> distribution;
  for (TokenId id : order) distribution[id] = weight(id) / kept;
  return distribution;
}

TEST(RandomTest, PhiloxMatchesItsPublishedVectors) {
  using Counter = std::array<uint32_t, 4>;
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}), (Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomTest, UniformIsInRangeAndEven) {
  std::vector<int> bins(10, 0);
  for (uint64_t seed = 0; seed < 100; ++seed) {
    for (uint64_t position = 0; position < 100; ++position) {
      const double u = UniformAt(seed, position);
      ASSERT_GE(u, 0);
      ASSERT_LT(u, 1);
      ++bins[static_cast<int>(u * 10)];
    }
  }
  double chi_square = 0;
  for (int count : bins) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_square, 27.9) << "9 degrees of freedom, p = 0.001";
}

TEST(SamplerTest, GreedyTakesTheLargestAndTiesGoToTheLowerId) {
  Sampler sampler(5);
  const std::vector<float> logits = {1, 3, 2, 3, 3};
  EXPECT_EQ(sampler.Sample(logits, {}, {}, 0)->token, 1);
  EXPECT_TRUE(sampler.Sample(logits, {}, {}, 0)->top.empty());
}

TEST(SamplerTest, DrawsFollowTheReferenceDistribution) {
  constexpr int64_t kVocab = 300;
  constexpr int kDraws = 4000;
  Sampler sampler(kVocab);
  const std::vector<TokenId> seen = {3, 5, 5, 8, 13};
  uint32_t case_number = 0;
  for (float temperature : {0.5f, 1.0f, 3.0f}) {
    for (int32_t top_k : {0, 1, 7, 1000}) {
      for (float top_p : {0.1f, 0.8f, 1.0f}) {
        for (float min_p : {0.0f, 0.2f}) {
          for (float penalty : {1.0f, 1.7f}) {
            SamplingParams params;
            params.temperature = temperature;
            params.top_k = top_k;
            params.top_p = top_p;
            params.min_p = min_p;
            params.repetition_penalty = penalty;
            params.seed = ++case_number;
            const std::vector<float> logits = RandomLogits(kVocab, case_number);
            const std::map<TokenId, double> expected = ReferenceDistribution(logits, params, seen);
            std::map<TokenId, int> counts;
            for (int i = 0; i < kDraws; ++i) ++counts[sampler.Sample(logits, params, seen, i)->token];
            for (const auto& [id, count] : counts) {
              ASSERT_EQ(expected.count(id), 1) << "token " << id << " was filtered out, case " << case_number;
            }
            // Total variation distance; its expected size for n draws over m outcomes is below sqrt(m / (2 pi n)).
            double distance = 0;
            for (const auto& [id, probability] : expected) {
              distance += std::abs(probability - counts[id] / static_cast<double>(kDraws)) / 2;
            }
            ASSERT_LT(distance, 0.01 + 1.5 * std::sqrt(expected.size() / (6.28 * kDraws))) << "case " << case_number;
          }
        }
      }
    }
  }
}

TEST(SamplerTest, NucleusOfALargeFlatVocabularyIsTheSortedOne) {
  constexpr int64_t kVocab = 5000;
  Sampler sampler(kVocab);
  SamplingParams params;
  params.temperature = 1;
  params.top_p = 0.7f;
  const std::vector<float> logits = RandomLogits(kVocab, 3, 0.1f);
  const std::map<TokenId, double> expected = ReferenceDistribution(logits, params, {});
  EXPECT_GT(expected.size(), 3000);
  for (int i = 0; i < 2000; ++i) ASSERT_EQ(expected.count(sampler.Sample(logits, params, {}, i)->token), 1);
}

TEST(SamplerTest, DrawsDependOnSeedAndPositionOnly) {
  Sampler one(1000), two(1000);
  SamplingParams params;
  params.temperature = 1;
  params.seed = 42;
  const std::vector<float> logits = RandomLogits(1000, 1);
  std::vector<TokenId> first, second;
  for (int i = 0; i < 50; ++i) first.push_back(one.Sample(logits, params, {}, i)->token);
  for (int i = 49; i >= 0; --i) {
    SamplingParams other = params;
    other.seed = i;
    ASSERT_TRUE(two.Sample(logits, other, {}, 3).ok());  // somebody else's draw in between
    second.insert(second.begin(), two.Sample(logits, params, {}, i)->token);
  }
  EXPECT_EQ(first, second);
  params.seed = 43;
  std::vector<TokenId> third;
  for (int i = 0; i < 50; ++i) third.push_back(one.Sample(logits, params, {}, i)->token);
  EXPECT_NE(first, third);
}

TEST(SamplerTest, RepetitionPenaltyCountsATokenOnce) {
  Sampler sampler(3);
  SamplingParams params;
  params.repetition_penalty = 2;
  // 4 / 2 = 2 for a token seen twice, not 1; a negative logit gets more negative.
  EXPECT_EQ(sampler.Sample(std::vector<float>{4, 1.5f, -1}, params, std::vector<TokenId>{0, 0}, 0)->token, 0);
  EXPECT_EQ(sampler.Sample(std::vector<float>{4, 2.5f, -1}, params, std::vector<TokenId>{0, 0}, 0)->token, 1);
  EXPECT_EQ(sampler.Sample(std::vector<float>{-4, -3, -5}, params, std::vector<TokenId>{1}, 0)->token, 0);
}

TEST(SamplerTest, LogprobsAreOfTheUnmodifiedDistribution) {
  Sampler sampler(6);
  const std::vector<float> logits = {0, 2, 1, 2, -1, 0.5f};
  SamplingParams params;
  params.temperature = 0.3f;
  params.top_k = 1;
  params.repetition_penalty = 5;
  params.logprobs = 3;
  const OutputToken output = *sampler.Sample(logits, params, std::vector<TokenId>{1, 3}, 0);
  EXPECT_EQ(output.token, 2) << "the penalty lowers tokens 1 and 3";
  double sum = 0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit));
  EXPECT_NEAR(output.logprob, 1 - std::log(sum), 1e-6);
  ASSERT_EQ(output.top.size(), 3);
  EXPECT_EQ(output.top[0].token, 1);
  EXPECT_EQ(output.top[1].token, 3);
  EXPECT_EQ(output.top[2].token, 2);
  EXPECT_NEAR(output.top[0].logprob, 2 - std::log(sum), 1e-6);
  EXPECT_NEAR(output.top[2].logprob, output.logprob, 0);
}

TEST(SamplerTest, TopTokensEqualASort) {
  for (int64_t vocab : {1, 63, 64, 400, 3000}) {
    for (int count : {0, 1, 5, 20, 64, 500}) {
      std::vector<float> logits = RandomLogits(vocab, 9);
      for (float& logit : logits) logit = std::round(logit * 4) / 4;  // many ties
      std::vector<TokenId> order(vocab);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) { return logits[a] > logits[b]; });
      const std::vector<TokenAlternative> top = Sampler(vocab).Score(logits, 0, count)->top;
      ASSERT_EQ(top.size(), std::min<size_t>(count, vocab));
      for (size_t i = 0; i < top.size(); ++i) ASSERT_EQ(top[i].token, order[i]) << vocab << " " << count << " " << i;
    }
  }
}

// The set of tokens that may be drawn is exact, also where ties, steep and flat rows and block borders make it hard.
TEST(SamplerTest, KeepsExactlyTheTokensOfTheReference) {
  uint32_t case_number = 100;
  for (int64_t vocab : {1, 17, 64, 65, 1000}) {
    for (float grid : {0.0f, 0.5f}) {
      for (float scale : {0.01f, 3.0f, 30.0f}) {
        for (int32_t top_k : {0, 1, 3, 12}) {
          for (float top_p : {0.3f, 0.95f, 1.0f}) {
            for (float min_p : {0.0f, 0.02f}) {
              std::vector<float> logits = RandomLogits(vocab, ++case_number, scale);
              for (float& logit : logits) logit = grid > 0 ? std::round(logit / grid) * grid : logit;
              SamplingParams params;
              params.temperature = 1.3f;
              params.top_k = top_k;
              params.top_p = top_p;
              params.min_p = min_p;
              const std::map<TokenId, double> expected = ReferenceDistribution(logits, params, {});
              Sampler sampler(vocab);
              std::set<TokenId> drawn;
              for (int i = 0; i < 300; ++i) {
                const TokenId token = sampler.Sample(logits, params, {}, i)->token;
                ASSERT_EQ(expected.count(token), 1) << "token " << token << ", case " << case_number;
                drawn.insert(token);
              }
              for (const auto& [id, probability] : expected) {
                if (probability <= 0.1) continue;
                ASSERT_EQ(drawn.count(id), 1) << "token " << id << ", case " << case_number;
              }
            }
          }
        }
      }
    }
  }
}

TEST(SamplerTest, ExtremePenaltiesRuleTokensOut) {
  Sampler sampler(3);
  SamplingParams params;
  params.temperature = 1;
  params.repetition_penalty = 3e38f;
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(sampler.Sample(std::vector<float>{-50, -60, -70}, params, std::vector<TokenId>{0, 1}, i)->token, 2);
  }
}

TEST(SamplerTest, ScoresAGivenToken) {
  Sampler sampler(3);
  const std::vector<float> logits = {1, 2, 2};
  const ScoredToken second = *sampler.Score(logits, 1, 0);
  EXPECT_NEAR(std::exp(second.logprob), std::exp(2.0) / (std::exp(1.0) + 2 * std::exp(2.0)), 1e-6);
  EXPECT_TRUE(second.is_greedy);
  EXPECT_FALSE(sampler.Score(logits, 2, 0)->is_greedy) << "ties go to the lower id";
  EXPECT_EQ(sampler.Score(logits, 0, 2)->top.size(), 2);
  EXPECT_EQ(sampler.Score(logits, 0, 0, std::vector<TokenId>{2, 2})->watched,
            std::vector<float>({second.logprob, second.logprob}));
}

TEST(SamplerTest, RefusesNonFiniteLogits) {
  Sampler sampler(4);
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()}) {
    const std::vector<float> logits = {1, bad, 0, 0};
    EXPECT_EQ(GetErrorDetail(sampler.Sample(logits, {}, {}, 0).status()).reason, kNonFinite);
    EXPECT_EQ(GetErrorDetail(sampler.Score(logits, 0, 0).status()).reason, kNonFinite);
  }
}

TEST(SamplerTest, SurvivesExtremeLogits) {
  Sampler sampler(3);
  SamplingParams params;
  params.temperature = 1e-3f;
  params.top_p = 0.5f;
  params.logprobs = 3;
  const OutputToken output = *sampler.Sample(std::vector<float>{-3e38f, 3e38f, 0}, params, {}, 0);
  EXPECT_EQ(output.token, 1);
  EXPECT_EQ(output.logprob, 0);
}

}  // namespace
}  // namespace trimtab
