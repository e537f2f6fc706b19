// Preference pairs from JSON lines with the fields prompt, preferred and dispreferred.
#ifndef TRIMTAB_TESTS_STEERING_TESTING_PAIRS_H_
#define TRIMTAB_TESTS_STEERING_TESTING_PAIRS_H_

#include <cstddef>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "steering/preference.h"

namespace trimtab {

inline PreferencePair Pair(std::string prompt, std::string preferred, std::string dispreferred) {
  return {.prompt = {{.role = "user", .text = std::move(prompt)}},
          .preferred = std::move(preferred),
          .dispreferred = std::move(dispreferred)};
}

// At most `limit` pairs; empty when the file cannot be read.
inline std::vector<PreferencePair> ReadPairs(const std::string& path, size_t limit) {
  std::vector<PreferencePair> pairs;
  std::ifstream file(path);
  for (std::string line; pairs.size() < limit && std::getline(file, line);) {
    const nlohmann::json json = nlohmann::json::parse(line);
    pairs.push_back(Pair(json.at("prompt"), json.at("preferred"), json.at("dispreferred")));
  }
  return pairs;
}

inline std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_STEERING_TESTING_PAIRS_H_
