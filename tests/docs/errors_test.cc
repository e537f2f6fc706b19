// docs/errors.md and the reasons in server/base/error.h name the same things.
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace trimtab {
namespace {

std::string Read(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  EXPECT_TRUE(file.good()) << path;
  return text.str();
}

std::set<std::string> Matches(const std::string& text, const std::string& pattern) {
  std::set<std::string> found;
  const std::regex regex(pattern);
  for (std::sregex_iterator at(text.begin(), text.end(), regex), end; at != end; ++at) found.insert((*at)[1]);
  return found;
}

TEST(ErrorsPage, ListsEveryReasonAndNoOther) {
  const std::set<std::string> documented = Matches(Read("docs/errors.md"), "\n\\| ([A-Z_]+) \\|");
  const std::set<std::string> defined =
      Matches(Read("server/base/error.h"), "std::string_view k[A-Za-z]+ = \"([A-Z_]+)\"");
  EXPECT_GE(defined.size(), 25u);
  EXPECT_EQ(documented, defined);
}

}  // namespace
}  // namespace trimtab
