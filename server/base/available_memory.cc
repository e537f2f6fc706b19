#include "server/base/available_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace trimtab {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// The file's first word as a number; nullopt for "max" and for what cannot be read.
std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  int64_t number = 0;
  if (!(file >> word) || !absl::SimpleAtoi(word, &number)) return std::nullopt;
  return number;
}

// The number after `key` at the start of a line.
std::optional<int64_t> ReadField(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    int64_t number = 0;
    if (words >> name >> number && name == key) return number;
  }
  return std::nullopt;
}

struct GroupFiles {
  const char *limit, *usage, *inactive_file;
};
constexpr GroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
constexpr GroupFiles kVersion2 = {"memory.max", "memory.current", "inactive_file"};

int64_t LeftInGroup(const std::string& folder, const GroupFiles& names) {
  const std::optional<int64_t> limit = ReadNumber(absl::StrCat(folder, "/", names.limit));
  const std::optional<int64_t> usage = ReadNumber(absl::StrCat(folder, "/", names.usage));
  if (!limit || !usage) return kNoLimit;
  const int64_t cache = ReadField(folder + "/memory.stat", names.inactive_file).value_or(0);
  return std::max<int64_t>(*limit - *usage + cache, 0);
}

// The group of the process (`path`, from the root of its hierarchy at `root`) and all above it.
int64_t LeftInGroups(const std::string& root, std::string path, const GroupFiles& names) {
  int64_t left = LeftInGroup(root, names);
  while (path.size() > 1) {
    left = std::min(left, LeftInGroup(root + path, names));
    path.resize(path.rfind('/'));
  }
  return left;
}

}  // namespace

int64_t AvailableMemory(const MemoryFiles& files) {
  int64_t available = kNoLimit;
  if (const auto kib = ReadField(files.meminfo, "MemAvailable:")) available = *kib * 1024;
  // Lines are "number:controllers:path"; version 2 has number 0 and no controllers.
  std::ifstream groups(files.own_cgroup);
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos || second + 1 >= line.size() || line[second + 1] != '/') continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (line.starts_with("0::")) {
      available = std::min(available, LeftInGroups(files.cgroups, path, kVersion2));
    } else if (controllers.find(",memory,") != std::string::npos) {
      available = std::min(available, LeftInGroups(files.cgroups + "/memory", path, kVersion1));
    }
  }
  return available;
}

}  // namespace trimtab
