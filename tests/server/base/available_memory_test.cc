#include "server/base/available_memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace trimtab {
namespace {

class AvailableMemoryTest : public ::testing::Test {
 protected:
  AvailableMemoryTest() {
    std::string pattern = ::testing::TempDir() + "/memoryXXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    files_ = {.meminfo = folder_ + "/meminfo", .own_cgroup = folder_ + "/cgroup", .cgroups = folder_ + "/groups"};
    Write("meminfo", "MemTotal:  9000 kB\nMemAvailable:    4000 kB\n");
  }
  ~AvailableMemoryTest() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(folder_ + "/" + name).parent_path());
    std::ofstream(folder_ + "/" + name) << text;
  }

  std::string folder_;
  MemoryFiles files_;
};

TEST_F(AvailableMemoryTest, IsTheKernelsNumberWithoutLimits) {
  EXPECT_EQ(AvailableMemory(files_), 4000 * 1024);
  Write("cgroup", "0::/a/b\n");
  Write("groups/a/b/memory.max", "max\n");
  Write("groups/a/b/memory.current", "100\n");
  EXPECT_EQ(AvailableMemory(files_), 4000 * 1024);
}

TEST_F(AvailableMemoryTest, TheTightestGroupCounts) {
  Write("cgroup", "0::/a/b\n");
  Write("groups/a/b/memory.max", "1000000\n");
  Write("groups/a/b/memory.current", "300000\n");
  EXPECT_EQ(AvailableMemory(files_), 700'000);
  Write("groups/a/b/memory.stat", "anon 1\ninactive_file 50000\n");
  EXPECT_EQ(AvailableMemory(files_), 750'000);
  Write("groups/a/memory.max", "400000\n");
  Write("groups/a/memory.current", "390000\n");
  EXPECT_EQ(AvailableMemory(files_), 10'000);
  Write("groups/memory.max", "5\n");
  Write("groups/memory.current", "9\n");
  EXPECT_EQ(AvailableMemory(files_), 0);
}

TEST_F(AvailableMemoryTest, ReadsVersion1) {
  Write("cgroup", "3:cpu,cpuacct:/c\n2:memory:/c\n");
  Write("groups/memory/c/memory.limit_in_bytes", "2000\n");
  Write("groups/memory/c/memory.usage_in_bytes", "1500\n");
  Write("groups/memory/c/memory.stat", "inactive_file 7\ntotal_inactive_file 100\n");
  EXPECT_EQ(AvailableMemory(files_), 600);
}

TEST_F(AvailableMemoryTest, WhatCannotBeReadIsNoLimit) {
  std::filesystem::remove(files_.meminfo);
  Write("cgroup", "nonsense\n0:\n0::\n1:memory:relative\n");
  EXPECT_GT(AvailableMemory(files_), int64_t{1} << 60);
  EXPECT_GT(AvailableMemory(), 0);
}

}  // namespace
}  // namespace trimtab
