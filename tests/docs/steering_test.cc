// docs/steering.md knows the methods and options that there are, and its pictures are there and small.
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>

#include "steering/method_registry.h"
#include "tests/docs/page.h"
#include "tools/study/arms.h"

namespace trimtab {
namespace {

TEST(SteeringPage, ListsTheMethodsAndNoOthers) {
  MethodRegistry methods;
  ASSERT_TRUE(RegisterBuiltinMethods(methods).ok());
  std::set<std::string> known;
  for (const MethodInfo& method : methods.List()) known.insert(method.id);
  EXPECT_EQ(Matches(Read("docs/steering.md"), "\n\\| `([a-z_]+)` \\|"), known);
}

TEST(SteeringPage, NamesTheGroupsOfTheStudy) {
  const absl::StatusOr<ArmList> list = ParseArms(Read("tools/study/arms.json"));
  ASSERT_TRUE(list.ok()) << list.status();
  const std::string page = Read("docs/steering.md");
  for (const ArmGroup& group : list->groups) EXPECT_NE(page.find("`" + group.id + "`"), std::string::npos) << group.id;
}

TEST(SteeringPage, ItsPicturesAreThereAndSmall) {
  const std::set<std::string> pictures = Matches(Read("docs/steering.md"), "\\]\\((images/[^)]+)\\)");
  EXPECT_FALSE(pictures.empty());
  for (const std::string& picture : pictures) {
    ASSERT_TRUE(std::filesystem::exists("docs/" + picture)) << picture;
    EXPECT_LT(std::filesystem::file_size("docs/" + picture), 100'000u) << picture;
  }
}

}  // namespace
}  // namespace trimtab
