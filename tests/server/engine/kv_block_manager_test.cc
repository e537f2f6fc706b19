#include "server/engine/kv_block_manager.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace trimtab {
namespace {

std::vector<Digest128> Keys(std::vector<TokenId> tokens, int64_t block_size, const Digest128& steering = {}) {
  std::vector<Digest128> keys;
  Digest128 parent = {};
  for (size_t begin = 0; begin + block_size <= tokens.size(); begin += block_size) {
    parent = PrefixKey(parent, absl::MakeConstSpan(tokens).subspan(begin, block_size), steering);
    keys.push_back(parent);
  }
  return keys;
}

TEST(PrefixKeyTest, DependsOnParentTokensAndSteering) {
  const std::vector<TokenId> tokens = {1, 2, 3, 4}, others = {1, 2, 3, 5};
  std::set<Digest128> keys;
  keys.insert(PrefixKey({}, tokens, {}));
  keys.insert(PrefixKey({}, others, {}));
  keys.insert(PrefixKey({1, 0}, tokens, {}));
  keys.insert(PrefixKey({}, tokens, {1, 0}));
  keys.insert(PrefixKey({0, 1}, tokens, {}));
  EXPECT_EQ(keys.size(), 5);
  EXPECT_EQ(PrefixKey({}, tokens, {}), PrefixKey({}, tokens, {}));
}

TEST(KvBlockManagerTest, AllocatesAllOrNothing) {
  KvBlockManager manager(4, 16);
  std::vector<int32_t> blocks;
  EXPECT_FALSE(manager.Allocate(5, blocks));
  EXPECT_TRUE(blocks.empty());
  EXPECT_TRUE(manager.Allocate(3, blocks));
  EXPECT_EQ(manager.available(), 1);
  EXPECT_FALSE(manager.Allocate(2, blocks));
  EXPECT_EQ(blocks.size(), 3);
  manager.Release(blocks);
  EXPECT_EQ(manager.available(), 4);
  EXPECT_TRUE(manager.CheckInvariants().ok());
}

TEST(KvBlockManagerTest, BlocksForRoundsUp) {
  const KvBlockManager manager(4, 16);
  EXPECT_EQ(manager.BlocksFor(0), 0);
  EXPECT_EQ(manager.BlocksFor(1), 1);
  EXPECT_EQ(manager.BlocksFor(16), 1);
  EXPECT_EQ(manager.BlocksFor(17), 2);
}

TEST(KvBlockManagerTest, SharesPublishedBlocksWithoutCopying) {
  KvBlockManager manager(4, 2);
  const std::vector<Digest128> keys = Keys({1, 2, 3, 4}, 2);
  std::vector<int32_t> first;
  ASSERT_TRUE(manager.Allocate(2, first));
  EXPECT_TRUE(manager.AcquireCached(keys).empty()) << "nothing is shared before it is published";
  manager.Publish(first[0], keys[0]);
  manager.Publish(first[1], keys[1]);
  EXPECT_EQ(manager.CountCached(keys), 2);
  const std::vector<int32_t> second = manager.AcquireCached(keys);
  EXPECT_EQ(second, first);
  EXPECT_EQ(manager.references(first[0]), 2);
  manager.Release(first);
  EXPECT_EQ(manager.available(), 2) << "still held by the second";
  manager.Release(second);
  EXPECT_EQ(manager.available(), 4);
  EXPECT_EQ(manager.AcquireCached(keys), first) << "kept after the last reference";
  EXPECT_TRUE(manager.CheckInvariants().ok());
}

TEST(KvBlockManagerTest, StopsAtTheFirstMiss) {
  KvBlockManager manager(4, 2);
  const std::vector<Digest128> keys = Keys({1, 2, 3, 4, 5, 6}, 2);
  std::vector<int32_t> blocks;
  ASSERT_TRUE(manager.Allocate(2, blocks));
  manager.Publish(blocks[0], keys[0]);
  manager.Publish(blocks[1], keys[2]);
  EXPECT_EQ(manager.CountCached(keys), 1);
  EXPECT_EQ(manager.AcquireCached(keys), std::vector<int32_t>{blocks[0]});
}

TEST(KvBlockManagerTest, FirstPublisherWins) {
  KvBlockManager manager(2, 2);
  const std::vector<Digest128> keys = Keys({1, 2}, 2);
  std::vector<int32_t> blocks;
  ASSERT_TRUE(manager.Allocate(2, blocks));
  manager.Publish(blocks[0], keys[0]);
  manager.Publish(blocks[1], keys[0]);
  EXPECT_EQ(manager.AcquireCached(keys), std::vector<int32_t>{blocks[0]});
  EXPECT_TRUE(manager.CheckInvariants().ok());
}

TEST(KvBlockManagerTest, EvictsLeastRecentlyUsedAndTheTailOfAChainFirst) {
  KvBlockManager manager(4, 2);
  const std::vector<Digest128> a = Keys({1, 2, 3, 4}, 2), b = Keys({5, 6, 7, 8}, 2);
  for (const std::vector<Digest128>& keys : {a, b}) {
    std::vector<int32_t> blocks;
    ASSERT_TRUE(manager.Allocate(2, blocks));
    manager.Publish(blocks[0], keys[0]);
    manager.Publish(blocks[1], keys[1]);
    manager.Release(blocks);
  }
  manager.Release(manager.AcquireCached(a));  // now b is the older one
  std::vector<int32_t> taken;
  ASSERT_TRUE(manager.Allocate(1, taken));
  EXPECT_EQ(manager.CountCached(b), 1) << "the last block of b went";
  EXPECT_EQ(manager.CountCached(a), 2);
  ASSERT_TRUE(manager.Allocate(1, taken));
  EXPECT_EQ(manager.CountCached(b), 0);
  ASSERT_TRUE(manager.Allocate(1, taken));
  EXPECT_EQ(manager.CountCached(a), 1);
  EXPECT_TRUE(manager.CheckInvariants().ok());
}

TEST(KvBlockManagerTest, NeverEvictsReferencedBlocks) {
  KvBlockManager manager(2, 2);
  const std::vector<Digest128> keys = Keys({1, 2}, 2);
  std::vector<int32_t> held, more;
  ASSERT_TRUE(manager.Allocate(1, held));
  manager.Publish(held[0], keys[0]);
  ASSERT_TRUE(manager.Allocate(1, more));
  EXPECT_FALSE(manager.Allocate(1, more));
  EXPECT_EQ(manager.CountCached(keys), 1);
}

TEST(KvBlockManagerTest, SteeringSeparatesEqualTokens) {
  KvBlockManager manager(2, 2);
  std::vector<int32_t> blocks;
  ASSERT_TRUE(manager.Allocate(1, blocks));
  manager.Publish(blocks[0], Keys({1, 2}, 2, {7, 7})[0]);
  EXPECT_EQ(manager.CountCached(Keys({1, 2}, 2)), 0);
  EXPECT_EQ(manager.CountCached(Keys({1, 2}, 2, {7, 8})), 0);
  EXPECT_EQ(manager.CountCached(Keys({1, 2}, 2, {7, 7})), 1);
}

// A model of the manager that remembers what each block holds: a hit must hold what its key says.
TEST(KvBlockManagerTest, RandomUseKeepsInvariantsAndContent) {
  std::mt19937 random(7);
  constexpr int64_t kBlocks = 12;
  KvBlockManager manager(kBlocks, 1);
  std::vector<TokenId> content(kBlocks, -1);
  std::map<int, std::vector<int32_t>> holders;
  int next = 0;
  for (int step = 0; step < 20000; ++step) {
    if (random() % 3 != 0) {
      std::vector<TokenId> tokens(1 + random() % 5);
      for (TokenId& token : tokens) token = static_cast<TokenId>(random() % 2);
      const std::vector<Digest128> keys = Keys(tokens, 1);
      std::vector<int32_t> blocks = manager.AcquireCached(keys);
      for (size_t i = 0; i < blocks.size(); ++i) ASSERT_EQ(content[blocks[i]], tokens[i]);
      const size_t shared = blocks.size();
      if (!manager.Allocate(static_cast<int64_t>(tokens.size() - shared), blocks)) {
        ASSERT_EQ(blocks.size(), shared);
        manager.Release(blocks);
      } else {
        for (size_t i = shared; i < tokens.size(); ++i) {
          content[blocks[i]] = tokens[i];
          if (random() % 4 != 0) manager.Publish(blocks[i], keys[i]);
        }
        holders[next++] = std::move(blocks);
      }
    } else if (!holders.empty()) {
      auto it = std::next(holders.begin(), static_cast<int64_t>(random() % holders.size()));
      manager.Release(it->second);
      holders.erase(it);
    }
    ASSERT_TRUE(manager.CheckInvariants().ok()) << manager.CheckInvariants();
  }
  for (const auto& [id, blocks] : holders) manager.Release(blocks);
  EXPECT_EQ(manager.available(), kBlocks);
}

}  // namespace
}  // namespace trimtab
