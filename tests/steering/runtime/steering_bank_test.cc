#include "steering/runtime/steering_bank.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tests/steering/testing/vectors.h"

namespace trimtab {
namespace {

constexpr int64_t kLayers = 4, kHidden = 8;

TEST(SteeringBankTest, HoldsDirectionTimesWeightAndZerosElsewhere) {
  SteeringVectorSpec spec = RandomSpec({1, 3}, kHidden, 1);
  spec.layers[1].weight = 0.25f;
  const auto vector = *SteeringVector::Create(spec);
  SteeringBank bank(2, kLayers, kHidden);
  const int32_t slot = *bank.Acquire(vector);
  const auto table = bank.table().accessor<float, 3>();
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const LayerDirection* direction = vector->Find(layer);
    EXPECT_EQ(bank.steers(slot, layer), direction != nullptr);
    EXPECT_NEAR(bank.squares(slot, layer), layer == 1 ? 1 : layer == 3 ? 0.0625 : -1, 1e-6);
    for (int64_t d = 0; d < kHidden; ++d) {
      EXPECT_EQ(table[slot][layer][d], direction == nullptr ? 0 : direction->direction[d] * direction->weight);
    }
  }
  EXPECT_EQ(bank.bytes(), 2 * kLayers * kHidden * 4);
}

TEST(SteeringBankTest, KnowsHowAndWhereAVectorIsApplied) {
  SteeringBank bank(4, kLayers, kHidden);
  SteeringVectorSpec spec = RandomSpec({1}, kHidden, 1);
  const int32_t block = *bank.Acquire(*SteeringVector::Create(spec));
  spec.site = Site::kMlpOutput;
  spec.operation = Operation::kAddOpposingPreserveNorm;
  const int32_t mlp = *bank.Acquire(*SteeringVector::Create(spec));
  spec.site = Site::kAttentionOutput;
  spec.operation = Operation::kAdd;
  spec.strength_mode = StrengthMode::kAbsolute;
  const int32_t attention = *bank.Acquire(*SteeringVector::Create(spec));
  EXPECT_NE(block, mlp) << "the site is part of a vector's identity";
  EXPECT_EQ(bank.rule(block).site, Site::kBlockOutput);
  EXPECT_TRUE(bank.rule(block).preserves_norm && bank.rule(block).relative && !bank.rule(block).opposes);
  EXPECT_EQ(bank.rule(mlp).site, Site::kMlpOutput);
  EXPECT_TRUE(bank.rule(mlp).preserves_norm && bank.rule(mlp).opposes);
  EXPECT_EQ(bank.rule(attention).site, Site::kAttentionOutput);
  EXPECT_FALSE(bank.rule(attention).preserves_norm || bank.rule(attention).relative);
}

TEST(SteeringBankTest, EqualVectorsShareASlot) {
  SteeringBank bank(2, kLayers, kHidden);
  const int32_t slot = *bank.Acquire(RandomVector({1}, kHidden, 1));
  EXPECT_EQ(*bank.Acquire(RandomVector({1}, kHidden, 1)), slot);
  EXPECT_EQ(bank.counters().hits, 1);
  EXPECT_EQ(bank.counters().misses, 1);
}

TEST(SteeringBankTest, FullOfReferencesMeansWait) {
  SteeringBank bank(2, kLayers, kHidden);
  const int32_t first = *bank.Acquire(RandomVector({1}, kHidden, 1));
  ASSERT_TRUE(bank.Acquire(RandomVector({1}, kHidden, 2)).has_value());
  EXPECT_FALSE(bank.Acquire(RandomVector({1}, kHidden, 3)).has_value());
  bank.Release(first);
  EXPECT_EQ(*bank.Acquire(RandomVector({1}, kHidden, 3)), first);
  EXPECT_EQ(bank.counters().evictions, 1);
}

TEST(SteeringBankTest, CallersMistakesThrow) {
  SteeringBank bank(1, kLayers, kHidden);
  EXPECT_ANY_THROW(bank.Acquire(RandomVector({1}, kHidden + 1, 1)));
  EXPECT_ANY_THROW(bank.Acquire(RandomVector({kLayers}, kHidden, 1)));
  EXPECT_ANY_THROW(bank.Release(0));
}

// Against a model: references counted, least recently released out first, contents right at any time.
TEST(SteeringBankTest, RandomUseKeepsReferencesAndOrder) {
  constexpr int kVectors = 9, kSlots = 4;
  std::vector<std::shared_ptr<const SteeringVector>> vectors;
  for (int v = 0; v < kVectors; ++v) vectors.push_back(RandomVector({v % 3}, kHidden, static_cast<uint32_t>(v)));
  SteeringBank bank(kSlots, kLayers, kHidden);
  std::map<int, int> references;  // vector -> count
  std::map<int, int32_t> loaded;  // vector -> slot
  std::vector<int> idle;          // loaded, unreferenced; least recently released first
  std::mt19937 random(7);
  for (int step = 0; step < 20000; ++step) {
    const int v = static_cast<int>(random() % kVectors);
    if (random() % 2 == 0) {
      const auto slot = bank.Acquire(vectors[v]);
      const bool room = loaded.size() < kSlots || !idle.empty();
      ASSERT_EQ(slot.has_value(), loaded.contains(v) || room);
      if (!slot.has_value()) continue;
      if (loaded.contains(v)) {
        ASSERT_EQ(*slot, loaded[v]);
        std::erase(idle, v);
      } else {
        if (loaded.size() == kSlots) {
          ASSERT_EQ(*slot, loaded[idle.front()]);
          loaded.erase(idle.front());
          idle.erase(idle.begin());
        }
        for (const auto& [other, place] : loaded) ASSERT_NE(place, *slot);
        loaded[v] = *slot;
      }
      ++references[v];
      ASSERT_EQ(bank.vector(*slot).digest(), vectors[v]->digest());
      ASSERT_EQ(bank.table()[*slot][v % 3][0].item<float>(), vectors[v]->spec().layers[0].direction[0]);
      ASSERT_EQ(bank.table()[*slot][(v + 1) % 3].abs().sum().item<float>(), 0);
    } else if (references[v] > 0) {
      bank.Release(loaded[v]);
      if (--references[v] == 0) idle.push_back(v);
    }
  }
  EXPECT_EQ(bank.counters().uploaded_bytes, bank.counters().misses * kLayers * kHidden * 4);
}

}  // namespace
}  // namespace trimtab
