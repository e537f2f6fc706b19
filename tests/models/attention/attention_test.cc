// Both backends against attention written out in double.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "models/attention/dense_attention.h"
#include "models/attention/kv_cache.h"
#include "models/attention/paged_attention.h"
#include "tests/models/attention/exact_attention.h"

namespace trimtab {
namespace {

TEST(DenseAttentionTest, SequencesAndBranchesSeeOnlyTheirOwn) {
  at::manual_seed(1);
  std::vector<SequenceSpan> spans(4);
  spans[0].length = 9;
  spans[0].branches = {3, 2};
  spans[1] = spans[0];
  spans[2].length = 5;
  spans[3].length = 6;
  spans[3].branches = {4};
  const TokenLayout layout = TokenLayout::Dense(spans);
  const at::Tensor q = at::randn({layout.num_tokens, 6, 16}), k = at::randn({layout.num_tokens, 2, 16}),
                   v = at::randn({layout.num_tokens, 2, 16});
  DenseAttention attention;
  for (const int64_t window : {0, 4, 1, 11, 0, 100}) {
    const at::Tensor out = attention.Attend(0, RuleFor(16, window), q, k, v, layout);
    for (const SequenceSpan& span : layout.sequences) {
      at::Tensor visible = Causal(span.length, 0);
      int64_t begin = span.prompt_length();
      for (const int64_t branch : span.branches) {
        visible.narrow(0, begin + branch, span.length - begin - branch).narrow(1, begin, branch).fill_(false);
        begin += branch;
      }
      const auto rows = [&](const at::Tensor& x) { return x.narrow(0, span.begin, span.length); };
      const at::Tensor positions = rows(layout.positions);
      if (window > 0) visible.logical_and_(positions.unsqueeze(1) - positions.unsqueeze(0) < window);
      EXPECT_TRUE(
          at::allclose(rows(out).to(at::kDouble), ExactAttention(rows(q), rows(k), rows(v), visible), 1e-4, 1e-5))
          << window;
    }
  }
}

TEST(DenseAttentionTest, TheScaleIsTheRules) {
  at::manual_seed(7);
  SequenceSpan span;
  span.length = 9;
  const TokenLayout layout = TokenLayout::Dense({span});
  const at::Tensor q = at::randn({9, 2, 16}), k = at::randn({9, 2, 16}), v = at::randn({9, 2, 16});
  DenseAttention attention;
  EXPECT_TRUE(at::allclose(attention.Attend(0, {.scale = 0.5}, q, k, v, layout),
                           attention.Attend(0, RuleFor(16), 2 * q, k, v, layout), 1e-4, 1e-5));
}

TEST(DenseAttentionTest, OneObjectServesLayoutsOfDifferentShapesInTurn) {
  at::manual_seed(6);
  DenseAttention reused;
  for (const std::vector<int64_t>& branches : std::vector<std::vector<int64_t>>{{}, {3, 2}, {2, 3}, {3, 2}}) {
    SequenceSpan span;
    span.length = 9;
    span.branches = branches;
    const TokenLayout layout = TokenLayout::Dense({span});
    const at::Tensor q = at::randn({9, 2, 8}), k = at::randn({9, 2, 8}), v = at::randn({9, 2, 8});
    DenseAttention fresh;
    EXPECT_TRUE(at::equal(reused.Attend(3, RuleFor(8), q, k, v, layout), fresh.Attend(0, RuleFor(8), q, k, v, layout)));
  }
}

// Query type, cache type, (heads, kv_heads, head_dim), threads.
class PagedAttentionTest
    : public testing::TestWithParam<
          std::tuple<std::tuple<at::ScalarType, at::ScalarType>, std::tuple<int64_t, int64_t, int64_t>, int>> {};

TEST_P(PagedAttentionTest, ChunksOfSequencesMatchAttentionInDouble) {
  const auto [types, shape, threads] = GetParam();
  const auto [q_type, cache_type] = types;
  const auto [heads, kv_heads, d] = shape;
  at::set_num_threads(threads);
  at::manual_seed(2);
  ModelSpec spec{.num_heads = heads, .num_kv_heads = kv_heads, .head_dim = d};
  spec.layers.resize(2);
  KvCache cache(spec, 40, 16, cache_type);
  PagedAttention attention(cache);
  const std::vector<int64_t> lengths = {170, 3, 65};
  const std::vector<std::vector<int32_t>> tables = {{0, 7, 3, 9, 11, 2, 4, 20, 22, 21, 39}, {5}, {6, 8, 10, 12, 1}};
  std::vector<at::Tensor> q, k, v;
  for (const int64_t length : lengths) {
    q.push_back(at::randn({length, heads, d}).to(q_type));
    k.push_back(at::randn({length, kv_heads, d}).to(q_type));
    v.push_back(at::randn({length, kv_heads, d}).to(q_type));
  }
  const double tolerance = q_type == at::kFloat && cache_type == at::kFloat ? 1e-5 : 2e-2;
  std::vector<int64_t> done(lengths.size(), 0);
  // Each step: how many rows of each sequence.
  for (const std::vector<int64_t>& step : std::vector<std::vector<int64_t>>{{40, 1, 64}, {1, 1, 1}, {129, 1, 0}}) {
    std::vector<SequenceSpan> spans;
    std::vector<at::Tensor> step_q, step_k, step_v;
    for (size_t i = 0; i < lengths.size(); ++i) {
      if (step[i] == 0) continue;
      SequenceSpan span;
      span.length = step[i];
      span.context = done[i];
      span.block_table = tables[i];
      spans.push_back(span);
      step_q.push_back(q[i].narrow(0, done[i], step[i]));
      step_k.push_back(k[i].narrow(0, done[i], step[i]));
      step_v.push_back(v[i].narrow(0, done[i], step[i]));
    }
    const TokenLayout layout = TokenLayout::Paged(spans, 16);
    const at::Tensor out = attention.Attend(1, RuleFor(d), at::cat(step_q), at::cat(step_k), at::cat(step_v), layout);
    ASSERT_EQ(out.scalar_type(), q_type);
    size_t place = 0;
    for (size_t i = 0; i < lengths.size(); ++i) {
      if (step[i] == 0) continue;
      const int64_t total = done[i] + step[i];
      const auto as_cached = [&](const at::Tensor& x) { return x.narrow(0, 0, total).to(cache_type); };
      const at::Tensor expected =
          ExactAttention(q[i].narrow(0, done[i], step[i]), as_cached(k[i]), as_cached(v[i]), Causal(step[i], done[i]));
      const SequenceSpan& span = layout.sequences[place++];
      EXPECT_TRUE(at::allclose(out.narrow(0, span.begin, span.length).to(at::kDouble), expected, tolerance, tolerance));
      done[i] = total;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Grid, PagedAttentionTest,
    testing::Combine(testing::Values(std::tuple{at::kFloat, at::kFloat}, std::tuple{at::kBFloat16, at::kBFloat16},
                                     std::tuple{at::kFloat, at::kBFloat16}, std::tuple{at::kBFloat16, at::kFloat}),
                     testing::Values(std::tuple{9, 3, 64}, std::tuple{4, 4, 8}, std::tuple{5, 1, 20},
                                     std::tuple{2, 1, 128}),
                     testing::Values(1, 2)));

TEST(PagedAttentionTest, ARowHasTheSameBitsInAnyChunkAndBatch) {
  at::manual_seed(4);
  ModelSpec spec{.num_heads = 6, .num_kv_heads = 2, .head_dim = 64};
  spec.layers.resize(1);
  constexpr int64_t kLength = 150;
  const at::Tensor q = at::randn({kLength, 6, 64}), k = at::randn({kLength, 2, 64}), v = at::randn({kLength, 2, 64});
  const auto run = [&](const std::vector<int64_t>& chunks) {
    KvCache cache(spec, 10, 16, at::kFloat);
    PagedAttention attention(cache);
    std::vector<at::Tensor> parts;
    int64_t done = 0;
    for (const int64_t length : chunks) {
      SequenceSpan span;
      span.length = length;
      span.context = done;
      span.block_table = {9, 1, 0, 3, 2, 5, 4, 7, 6, 8};
      const TokenLayout layout = TokenLayout::Paged({span}, 16);
      const auto rows = [&](const at::Tensor& x) { return x.narrow(0, done, length); };
      parts.push_back(attention.Attend(0, RuleFor(64), rows(q), rows(k), rows(v), layout));
      done += length;
    }
    return at::cat(parts);
  };
  const at::Tensor whole = run({kLength});
  EXPECT_TRUE(at::equal(whole, run({1, 16, 33, 99, 1})));
  EXPECT_TRUE(at::equal(whole, run(std::vector<int64_t>(kLength, 1))));
}

}  // namespace
}  // namespace trimtab
