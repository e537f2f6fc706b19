#include "models/kernels/large_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace trimtab {
namespace {

TEST(LargeMemoryTest, GivesDistinctZeroedAlignedMemory) {
  std::vector<std::pair<std::shared_ptr<uint8_t[]>, size_t>> taken;
  for (size_t bytes : {size_t{1}, size_t{63}, size_t{64}, size_t{1000}, size_t{3} << 20, size_t{70} << 20, size_t{5}}) {
    taken.emplace_back(AllocateLarge(bytes), bytes);
    uint8_t* memory = taken.back().first.get();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0u);
    EXPECT_TRUE(std::all_of(memory, memory + bytes, [](uint8_t byte) { return byte == 0; })) << bytes;
    std::memset(memory, static_cast<int>(taken.size()), bytes);
  }
  for (size_t i = 0; i < taken.size(); ++i) {
    const uint8_t* memory = taken[i].first.get();
    EXPECT_TRUE(std::all_of(memory, memory + taken[i].second, [&](uint8_t byte) { return byte == i + 1; })) << i;
  }
}

TEST(LargeMemoryTest, MemoryOutlivesItsNeighbours) {
  std::shared_ptr<uint8_t[]> kept;
  {
    const std::shared_ptr<uint8_t[]> before = AllocateLarge(100);
    kept = AllocateLarge(100);
    const std::shared_ptr<uint8_t[]> after = AllocateLarge(100);
    kept[99] = 7;
  }
  EXPECT_EQ(kept[99], 7);
  EXPECT_EQ(AllocateLarge(100)[99], 0);
}

}  // namespace
}  // namespace trimtab
