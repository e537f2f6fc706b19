// docs/errors.md and the reasons in server/base/error.h name the same things.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tests/docs/page.h"

namespace trimtab {
namespace {

TEST(ErrorsPage, ListsEveryReasonAndNoOther) {
  const std::set<std::string> documented = Matches(Read("docs/errors.md"), "\n\\| ([A-Z_]+) \\|");
  const std::set<std::string> defined =
      Matches(Read("server/base/error.h"), "std::string_view k[A-Za-z]+ = \"([A-Z_]+)\"");
  EXPECT_GE(defined.size(), 25u);
  EXPECT_EQ(documented, defined);
}

}  // namespace
}  // namespace trimtab
