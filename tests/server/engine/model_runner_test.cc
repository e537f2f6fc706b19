#include "server/engine/model_runner.h"

#include <gtest/gtest.h>

#include "models/attention/kv_cache.h"
#include "models/attention/paged_attention.h"
#include "tests/server/engine/engine_testing.h"

namespace trimtab {
namespace {

constexpr int64_t kBlockSize = 4;

// A sequence whose blocks are `first_block`, `first_block` + 1, ...
Sequence MakeSequence(std::vector<TokenId> tokens, SteeringPlan plan, int32_t first_block) {
  Sequence sequence;
  sequence.request = MakeRequest("a", tokens, std::move(plan));
  sequence.tokens = std::move(tokens);
  for (int32_t i = 0; i < 4; ++i) sequence.blocks.push_back(first_block + i);
  sequence.running = true;
  return sequence;
}

TEST(BatchBuilderTest, LaysItemsOutOneAfterTheOther) {
  Sequence a = MakeSequence({1, 2, 3, 4, 5, 6}, {}, 0), b = MakeSequence({7, 8, 9}, {}, 8);
  BatchBuilder builder(kBlockSize);
  const StepBatch& batch = builder.Build({{{&a, 4, 2, 5}, {&b, 0, 2, 2}}});
  ASSERT_EQ(batch.token_ids.numel(), 4);
  const int64_t* ids = batch.token_ids.data_ptr<int64_t>();
  EXPECT_EQ(std::vector<int64_t>(ids, ids + 4), (std::vector<int64_t>{5, 6, 7, 8}));
  EXPECT_EQ(batch.logits_rows, std::vector<int64_t>{1}) << "b's prompt is not complete";
  EXPECT_TRUE(batch.steering.empty());
  ASSERT_EQ(batch.layout.sequences.size(), 2);
  EXPECT_EQ(batch.layout.sequences[0].context, 4);
  EXPECT_EQ(batch.layout.sequences[0].block_table, (std::vector<int32_t>{0, 1})) << "blocks of computed positions only";
  EXPECT_EQ(batch.layout.sequences[1].block_table, (std::vector<int32_t>{8}));
  const auto numbers = [](const at::Tensor& tensor) {
    const int64_t* first = tensor.const_data_ptr<int64_t>();
    return std::vector<int64_t>(first, first + tensor.numel());
  };
  EXPECT_EQ(numbers(batch.layout.positions), (std::vector<int64_t>{4, 5, 0, 1}));
  EXPECT_EQ(numbers(batch.layout.slots), (std::vector<int64_t>{4, 5, 32, 33}));
}

TEST(BatchBuilderTest, ABatchHasNothingLeftOfTheOneBefore) {
  const SteeringPlan plan = OneVector(TinyVector(1), 0.5f, ApplyTo::kAll);
  Sequence steered = MakeSequence({1, 2, 3, 4, 5, 6}, plan, 0), plain = MakeSequence({7, 8, 9, 10}, {}, 8);
  steered.slots[0] = 2;
  BatchBuilder builder(kBlockSize);
  builder.Build({{{&steered, 0, 6, 5}}});
  const StepBatch& batch = builder.Build({{{&plain, 3, 1, 3}}});
  EXPECT_TRUE(batch.steering.empty());
  EXPECT_EQ(batch.steered_rows, 0);
  EXPECT_EQ(batch.token_ids.numel(), 1);
  EXPECT_EQ(batch.logits_rows, std::vector<int64_t>{0});
  ASSERT_EQ(batch.layout.sequences.size(), 1);
  EXPECT_EQ(batch.layout.sequences[0].begin, 0);
  EXPECT_EQ(batch.layout.sequences[0].block_table, (std::vector<int32_t>{8}));
}

TEST(BatchBuilderTest, ScoreRequestsWantSeveralRowsOfLogits) {
  Sequence a = MakeSequence({1, 2, 3, 4, 5, 6}, {}, 0);
  BatchBuilder builder(kBlockSize);
  EXPECT_EQ(builder.Build({{{&a, 0, 5, 2}}}).logits_rows, (std::vector<int64_t>{2, 3, 4}));
  EXPECT_EQ(builder.Build({{{&a, 3, 2, 2}}}).logits_rows, (std::vector<int64_t>{0, 1}));
}

TEST(BatchBuilderTest, SteersByAbsolutePosition) {
  const auto vector = TinyVector(1);
  SteeringPlan plan({{.vector = vector, .strength = 0.5f, .apply_to = ApplyTo::kAll},
                     {.vector = vector, .strength = 0, .apply_to = ApplyTo::kAll},
                     {.vector = vector, .strength = -0.25f, .apply_to = ApplyTo::kFromLastPrompt}});
  Sequence plain = MakeSequence({1, 2}, {}, 0), steered = MakeSequence({1, 2, 3, 4, 5}, plan, 4);
  steered.slots = {6, -1, 7, -1};
  BatchBuilder builder(kBlockSize);
  const StepBatch& batch = builder.Build({{{&plain, 0, 2, 1}, {&steered, 2, 3, 4}}});
  EXPECT_EQ(batch.steered_rows, 3);
  ASSERT_EQ(batch.steering.entries.size(), 5 * kMaxSelections);
  const auto entry = [&](int64_t row, int64_t j) { return batch.steering.entries[row * kMaxSelections + j]; };
  EXPECT_EQ(entry(0, 0).slot, -1);
  EXPECT_EQ(entry(1, 2).slot, -1);
  for (int64_t row = 2; row < 5; ++row) {
    EXPECT_EQ(entry(row, 0).slot, 6);
    EXPECT_EQ(entry(row, 0).strength, 0.5f);
    EXPECT_EQ(entry(row, 1).slot, -1) << "strength 0";
    EXPECT_EQ(entry(row, 3).slot, -1);
  }
  EXPECT_EQ(entry(3, 2).slot, -1) << "position 3 is before the prompt's last token";
  EXPECT_EQ(entry(4, 2).slot, 7);
  EXPECT_EQ(entry(4, 2).strength, -0.25f);
}

TEST(ModelRunnerTest, ReturnsTokensDosesAndNoLogitsThatNobodyNeeds) {
  const auto model = TinyLoadedModel();
  const ModelSpec& spec = model->model->spec();
  KvCache cache(spec, 16, kBlockSize, at::kFloat);
  PagedAttention attention(cache);
  SteeringBank bank(4, spec.num_layers(), spec.hidden_size);
  ModelRunner runner(*model->model, attention, bank, kBlockSize);
  const SteeringPlan plan = OneVector(TinyVector(1), 0.2f, ApplyTo::kFromLastPrompt);
  const std::vector<TokenId> prompt = RandomTokens(7, 1);
  Sequence plain = MakeSequence(prompt, {}, 0), steered = MakeSequence(prompt, plan, 4);
  steered.slots[0] = *bank.Acquire(plan.entries()[0].vector);

  const StepResult& result = runner.Execute({{{&plain, 0, 7, 6}, {&steered, 0, 5, 6}}});
  ASSERT_EQ(result.items.size(), 2);
  EXPECT_FALSE(result.failed);
  ASSERT_TRUE(result.items[0].token);
  EXPECT_EQ(result.items[0].token->token, DenseGreedy(*model, prompt, {}, 1)[0]);
  EXPECT_TRUE(result.row_dose.empty());
  EXPECT_FALSE(result.items[1].token) << "its prompt is not complete";
  EXPECT_EQ(result.steering_duration, absl::ZeroDuration()) << "no steered row yet";

  runner.Execute({{{&steered, 5, 2, 6}}});
  ASSERT_EQ(result.items.size(), 1);
  EXPECT_EQ(result.items[0].token->token, DenseGreedy(*model, prompt, plan, 1)[0]);
  ASSERT_EQ(result.row_dose.size(), 2);
  EXPECT_EQ(result.row_dose[0], 0);
  EXPECT_NEAR(result.row_dose[1], 0.2, 1e-3);
  EXPECT_GT(result.steering_duration, absl::ZeroDuration());
}

}  // namespace
}  // namespace trimtab
