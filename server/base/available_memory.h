// How much memory this process may still take. Any thread that may read small files.
#ifndef TRIMTAB_SERVER_BASE_AVAILABLE_MEMORY_H_
#define TRIMTAB_SERVER_BASE_AVAILABLE_MEMORY_H_

#include <cstdint>
#include <string>

namespace trimtab {

// Where the kernel says so; tests have files of their own.
struct MemoryFiles {
  std::string meminfo = "/proc/meminfo";
  std::string own_cgroup = "/proc/self/cgroup";
  std::string cgroups = "/sys/fs/cgroup";
};

// Bytes: what the kernel calls available, or less when the control group of this process (version 1 or 2) or one above
// it has a limit; file cache counts as available. What cannot be read is no limit.
int64_t AvailableMemory(const MemoryFiles& files = {});

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_BASE_AVAILABLE_MEMORY_H_
