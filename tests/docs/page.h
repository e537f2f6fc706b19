// What the tests of pages read: a file's text and what a pattern finds in it.
#ifndef TRIMTAB_TESTS_DOCS_PAGE_H_
#define TRIMTAB_TESTS_DOCS_PAGE_H_

#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace trimtab {

// The text of a file by its path in the repository; a file that cannot be read fails the test.
inline std::string Read(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  EXPECT_TRUE(file.good()) << path;
  return text.str();
}

// What the first group of `pattern` matched, wherever it matches.
inline std::set<std::string> Matches(const std::string& text, const std::string& pattern) {
  std::set<std::string> found;
  const std::regex regex(pattern);
  for (std::sregex_iterator at(text.begin(), text.end(), regex), end; at != end; ++at) found.insert((*at)[1]);
  return found;
}

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_DOCS_PAGE_H_
