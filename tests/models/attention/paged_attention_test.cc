// Paged attention from projection to result, on every instruction set of this processor.
#include "models/attention/paged_attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "models/attention/dense_attention.h"
#include "models/attention/kv_cache.h"
#include "models/kernels/ops.h"
#include "models/kernels/thread_team.h"
#include "tests/models/attention/exact_attention.h"

namespace trimtab {
namespace {

std::vector<InstructionSet> InstructionSets() {
  std::vector<InstructionSet> sets = {InstructionSet::kAvx2};
  if (BestInstructionSet() != InstructionSet::kAvx2) sets.push_back(BestInstructionSet());
  return sets;
}

// Each instruction set without a window, and with one of more than a segment.
std::vector<std::pair<InstructionSet, int64_t>> InstructionsAndWindows() {
  std::vector<std::pair<InstructionSet, int64_t>> all;
  for (const InstructionSet instructions : InstructionSets()) {
    for (const int64_t window : {0, 300}) all.emplace_back(instructions, window);
  }
  return all;
}

struct Shape {
  int64_t heads, kv_heads, d;
};

ModelSpec SpecOf(const Shape& shape) {
  ModelSpec spec{.num_heads = shape.heads, .num_kv_heads = shape.kv_heads, .head_dim = shape.d};
  spec.layers.resize(2);
  return spec;
}

// The rows of one sequence: projections and angles.
struct Input {
  at::Tensor qkv;       // [length, heads + 2 * kv_heads, d]
  at::Tensor cos, sin;  // [length, d / 2]

  Input(int64_t length, const Shape& shape, at::ScalarType dtype)
      : qkv(at::randn({length, shape.heads + 2 * shape.kv_heads, shape.d}).to(dtype)) {
    const at::Tensor angles = 6 * at::rand({length, shape.d / 2});
    cos = at::cos(angles);
    sin = at::sin(angles);
  }
};

// A cache in which sequences grow, block by block from one list.
class Sequences {
 public:
  Sequences(const Shape& shape, int64_t num_blocks, int64_t block_size, at::ScalarType cache_type,
            InstructionSet instructions, int64_t window = 0)
      : shape_(shape),
        rule_(RuleFor(shape.d, window)),
        cache_(SpecOf(shape), num_blocks, block_size, cache_type),
        attention_(cache_, instructions),
        next_(static_cast<int32_t>(num_blocks)) {}

  // The next `rows[i]` rows of each sequence in one step -> [sum of rows, heads, d] in `out_type`.
  at::Tensor Step(const std::vector<const Input*>& inputs, const std::vector<int64_t>& rows, at::ScalarType out_type) {
    done_.resize(std::max(done_.size(), inputs.size()));
    tables_.resize(done_.size());
    std::vector<SequenceSpan> spans;
    std::vector<at::Tensor> qkv, cos, sin;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (rows[i] == 0) continue;
      while (static_cast<int64_t>(tables_[i].size()) * cache_.block_size() < done_[i] + rows[i]) {
        tables_[i].push_back(--next_);
      }
      SequenceSpan span;
      span.length = rows[i];
      span.context = done_[i];
      span.block_table = tables_[i];
      spans.push_back(span);
      qkv.push_back(inputs[i]->qkv.narrow(0, done_[i], rows[i]));
      cos.push_back(inputs[i]->cos.narrow(0, done_[i], rows[i]));
      sin.push_back(inputs[i]->sin.narrow(0, done_[i], rows[i]));
      done_[i] += rows[i];
    }
    const TokenLayout layout = TokenLayout::Paged(spans, cache_.block_size());
    at::Tensor out = at::empty({layout.num_tokens, shape_.heads, shape_.d}, out_type);
    attention_.AttendRotated(1, rule_, at::cat(qkv), at::cat(cos), at::cat(sin), layout, out);
    return out;
  }
  // All rows of one sequence, alone in its steps.
  at::Tensor Alone(const Input& input, const std::vector<int64_t>& chunks, at::ScalarType out_type) {
    std::vector<at::Tensor> parts;
    for (const int64_t chunk : chunks) parts.push_back(Step({&input}, {chunk}, out_type));
    return at::cat(parts);
  }
  void Forget() {
    done_.clear();
    tables_.clear();
    next_ = static_cast<int32_t>(cache_.num_blocks());
  }

 private:
  const Shape shape_;
  const AttentionRule rule_;
  KvCache cache_;
  PagedAttention attention_;
  int32_t next_;  // the last block given away
  std::vector<int64_t> done_;
  std::vector<std::vector<int32_t>> tables_;
};

// qkv's, the cache's and the result's type; GQA ratio; head_dim.
class AttendRotatedTest
    : public testing::TestWithParam<std::tuple<std::tuple<at::ScalarType, at::ScalarType, at::ScalarType>, Shape>> {};

TEST_P(AttendRotatedTest, RaggedChunksMatchTheCompositionInDouble) {
  const auto [types, shape] = GetParam();
  const auto [qkv_type, cache_type, out_type] = types;
  const auto [heads, kv_heads, d] = shape;
  const int64_t block_size = std::vector<int64_t>{16, 5, 64, 8}[static_cast<size_t>(d / 16 + heads) % 4];
  at::manual_seed(3);
  const std::vector<Input> inputs = {{290, shape, qkv_type}, {3, shape, qkv_type}, {40, shape, qkv_type}};
  const double tolerance = cache_type == at::kBFloat16 ? 2e-2 : out_type == at::kBFloat16 ? 1e-2 : 2e-5;
  // A short window, or one of some tiles.
  const int64_t some = heads == 3 ? 100 : 1 + d / 4;
  for (const int64_t window : {int64_t{0}, some}) {
    std::vector<at::Tensor> exact;
    for (const Input& input : inputs) {
      const at::Tensor wide = input.qkv.to(at::kFloat);
      const at::Tensor rotated = ref::Rope(wide.narrow(1, 0, heads + kv_heads), input.cos, input.sin);
      exact.push_back(ExactAttention(rotated.narrow(1, 0, heads), rotated.narrow(1, heads, kv_heads).to(cache_type),
                                     wide.narrow(1, heads + kv_heads, kv_heads).to(cache_type),
                                     Causal(input.qkv.size(0), 0, window)));
    }
    for (const InstructionSet instructions : InstructionSets()) {
      Sequences sequences(shape, 333 / block_size + 4, block_size, cache_type, instructions, window);
      std::vector<int64_t> done(inputs.size(), 0);
      for (const std::vector<int64_t>& rows :
           std::vector<std::vector<int64_t>>{{37, 1, 0}, {1, 1, 17}, {216, 0, 1}, {1, 1, 22}, {35, 0, 0}}) {
        const at::Tensor out = sequences.Step({&inputs[0], &inputs[1], &inputs[2]}, rows, out_type);
        ASSERT_EQ(out.scalar_type(), out_type);
        int64_t begin = 0;
        for (size_t i = 0; i < inputs.size(); ++i) {
          EXPECT_TRUE(at::allclose(out.narrow(0, begin, rows[i]).to(at::kDouble), exact[i].narrow(0, done[i], rows[i]),
                                   tolerance, tolerance))
              << "sequence " << i << " from row " << done[i] << ", window " << window;
          begin += rows[i];
          done[i] += rows[i];
        }
      }
    }
  }
}

constexpr at::ScalarType kWide = at::kFloat, kNarrow = at::kBFloat16;
INSTANTIATE_TEST_SUITE_P(
    Grid, AttendRotatedTest,
    testing::Combine(testing::Values(std::tuple{kWide, kWide, kWide}, std::tuple{kWide, kWide, kNarrow},
                                     std::tuple{kWide, kNarrow, kWide}, std::tuple{kWide, kNarrow, kNarrow},
                                     std::tuple{kNarrow, kWide, kWide}, std::tuple{kNarrow, kWide, kNarrow},
                                     std::tuple{kNarrow, kNarrow, kWide}, std::tuple{kNarrow, kNarrow, kNarrow}),
                     testing::Values(Shape{2, 2, 16}, Shape{2, 2, 64}, Shape{2, 2, 80}, Shape{2, 2, 128},
                                     Shape{2, 2, 256}, Shape{3, 1, 16}, Shape{3, 1, 64}, Shape{3, 1, 80},
                                     Shape{3, 1, 128}, Shape{3, 1, 256}, Shape{8, 1, 16}, Shape{8, 1, 64},
                                     Shape{8, 1, 80}, Shape{8, 1, 128}, Shape{8, 1, 256}, Shape{5, 1, 6})));

// Type of the cache, shape.
class BitsTest : public testing::TestWithParam<std::tuple<at::ScalarType, Shape>> {
 protected:
  static constexpr int64_t kLength = 1100;  // some segments
  const at::ScalarType type_ = std::get<0>(GetParam());
  const Shape shape_ = std::get<1>(GetParam());

  void SetUp() override { at::manual_seed(4); }
  Sequences Fresh(InstructionSet instructions, int64_t window, int64_t block_size = 16) const {
    return {shape_, 3 * (kLength / block_size + 1), block_size, type_, instructions, window};
  }
};

TEST_P(BitsTest, DoNotDependOnChunksBatchBlocksOrThreads) {
  const Input input(kLength, shape_, type_), other(kLength, shape_, type_);
  for (const auto& [instructions, window] : InstructionsAndWindows()) {
    const at::Tensor whole = Fresh(instructions, window).Alone(input, {kLength}, kWide);
    for (const int team_size : {1, 2, 3}) {
      ThreadTeam team(team_size);
      const ScopedTeam scope(&team);
      EXPECT_TRUE(at::equal(whole, Fresh(instructions, window).Alone(input, {kLength}, kWide)));
      EXPECT_TRUE(at::equal(whole, Fresh(instructions, window).Alone(input, {1, 16, 33, 205, 1, 1, 300, 543}, kWide)));
      EXPECT_TRUE(at::equal(whole, Fresh(instructions, window).Alone(input, std::vector<int64_t>(kLength, 1), kWide)));
      // In company: behind one long sequence, before another.
      Sequences together = Fresh(instructions, window);
      int64_t done = 0;
      for (const std::vector<int64_t>& rows :
           std::vector<std::vector<int64_t>>{{900, 70, 3}, {0, 1, 1}, {1, 500, 300}, {7, 529, 1}}) {
        const at::Tensor out = together.Step({&other, &input, &other}, rows, kWide);
        EXPECT_TRUE(at::equal(out.narrow(0, rows[0], rows[1]), whole.narrow(0, done, rows[1])));
        done += rows[1];
      }
    }
    for (const int64_t block_size : {6, 32, 128}) {
      EXPECT_TRUE(at::equal(whole, Fresh(instructions, window, block_size).Alone(input, {700, 1, 399}, kWide)));
    }
    EXPECT_TRUE(at::equal(whole.to(kNarrow), Fresh(instructions, window).Alone(input, {700, 1, 399}, kNarrow)));
  }
}

TEST_P(BitsTest, DoNotDependOnWhatNoRowMaySee) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const Input clean(75, shape_, kWide);
  Input broken(75, shape_, kWide), later(75, shape_, kWide);
  broken.qkv.fill_(kNan);
  later.qkv.copy_(clean.qkv);
  later.cos.copy_(clean.cos);
  later.sin.copy_(clean.sin);
  later.qkv.narrow(0, 41, 34).fill_(kNan);
  for (const auto& [instructions, window] : InstructionsAndWindows()) {
    const at::Tensor expected = Fresh(instructions, window).Alone(clean, {75}, kWide);
    ASSERT_TRUE(at::isfinite(expected).all().item<bool>());
    for (const std::vector<int64_t>& chunks :
         std::vector<std::vector<int64_t>>{{75}, {31, 44}, std::vector<int64_t>(75, 1)}) {
      // Blocks that a sequence without numbers has used before.
      Sequences reused = Fresh(instructions, window);
      reused.Alone(broken, {75}, kWide);
      reused.Forget();
      EXPECT_TRUE(at::equal(expected, reused.Alone(clean, chunks, kWide)));
      // Rows of the same chunk behind one's own.
      EXPECT_TRUE(at::equal(expected.narrow(0, 0, 41),
                            Fresh(instructions, window).Alone(later, chunks, kWide).narrow(0, 0, 41)));
    }
  }
}

TEST_P(BitsTest, DoNotDependOnWhatLiesBehindTheWindow) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr int64_t kRows = 700, kBroken = 300, kWindow = 101;
  const Input clean(kRows, shape_, kWide);
  Input broken(kRows, shape_, kWide);
  broken.qkv.copy_(clean.qkv);
  broken.cos.copy_(clean.cos);
  broken.sin.copy_(clean.sin);
  broken.qkv.narrow(0, 0, kBroken).fill_(kNan);
  constexpr int64_t kFirst = kBroken + kWindow - 1, kClear = kRows - kFirst;  // rows that see no broken one
  for (const InstructionSet instructions : InstructionSets()) {
    const at::Tensor expected = Fresh(instructions, kWindow).Alone(clean, {kRows}, kWide).narrow(0, kFirst, kClear);
    for (const std::vector<int64_t>& chunks :
         std::vector<std::vector<int64_t>>{{kRows}, {399, 3, 298}, std::vector<int64_t>(kRows, 1)}) {
      EXPECT_TRUE(
          at::equal(expected, Fresh(instructions, kWindow).Alone(broken, chunks, kWide).narrow(0, kFirst, kClear)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Grid, BitsTest,
                         testing::Combine(testing::Values(kWide, kNarrow),
                                          testing::Values(Shape{9, 3, 64}, Shape{2, 2, 80}, Shape{8, 1, 16})));

TEST(AttentionBackendTest, TheDefaultRotatesAttendsAndConverts) {
  at::manual_seed(5);
  const Shape shape{6, 2, 16};
  const Input input(20, shape, kWide);
  SequenceSpan span;
  span.length = 20;
  const TokenLayout layout = TokenLayout::Dense({span});
  DenseAttention attention;
  at::Tensor out = at::empty({20, 6, 16}, kNarrow);
  attention.AttendRotated(0, RuleFor(16), input.qkv, input.cos, input.sin, layout, out);
  const at::Tensor rotated = ref::Rope(input.qkv.narrow(1, 0, 8), input.cos, input.sin);
  EXPECT_TRUE(at::allclose(
      out.to(at::kDouble),
      ExactAttention(rotated.narrow(1, 0, 6), rotated.narrow(1, 6, 2), input.qkv.narrow(1, 8, 2), Causal(20, 0)), 1e-2,
      1e-2));
}

TEST(PagedAttentionTest, RefusesWhatDoesNotFitTheCache) {
  const Shape shape{4, 2, 16};
  KvCache cache(SpecOf(shape), 2, 16, kWide);
  PagedAttention attention(cache);
  SequenceSpan span;
  span.length = 3;
  span.block_table = {0};
  const TokenLayout layout = TokenLayout::Paged({span}, 16);
  at::Tensor out = at::empty({3, 4, 16});
  const at::Tensor angles = at::zeros({3, 8});
  EXPECT_THROW(attention.AttendRotated(0, RuleFor(16), at::zeros({3, 7, 16}), angles, angles, layout, out), c10::Error);
  EXPECT_THROW(attention.AttendRotated(0, RuleFor(16), at::zeros({3, 8, 32}), angles, angles, layout, out), c10::Error);
  EXPECT_THROW(attention.AttendRotated(0, RuleFor(16), at::zeros({3, 8, 16}), at::zeros({2, 8}), angles, layout, out),
               c10::Error);
  EXPECT_THROW(attention.AttendRotated(0, RuleFor(16), at::zeros({3, 8, 16}, at::kDouble), angles, angles, layout, out),
               c10::Error);
  EXPECT_NO_THROW(attention.AttendRotated(0, RuleFor(16), at::zeros({3, 8, 16}), angles, angles, layout, out));
}

}  // namespace
}  // namespace trimtab
