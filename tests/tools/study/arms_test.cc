#include "tools/study/arms.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

#include "steering/method_registry.h"
#include "tools/study/study.h"

namespace trimtab {
namespace {

void ExpectRefused(const std::string& json, const std::string& part) {
  const absl::StatusOr<ArmList> list = ParseArms(json);
  EXPECT_EQ(list.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(list.status().message().find(part), absl::string_view::npos) << list.status();
}

TEST(ArmsTest, ReadsEveryField) {
  const absl::StatusOr<ArmList> list = ParseArms(R"({
    "groups": [{"id": "k", "title": "Tokens", "x_title": "k", "logarithmic": true}],
    "masking": [{"name": "occlusion", "config": {"k": 3}}],
    "arms": [{"name": "a", "method": "grains", "config": {"k": 3}, "groups": ["k"], "depths": [0.5], "x": 3,
              "curve": true}, {"name": "b", "method": "caa"}]})");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_TRUE(list->groups[0].logarithmic);
  EXPECT_EQ(list->masking[0].second.at("k"), 3);
  EXPECT_EQ(list->arms[0].config.at("k"), 3);
  EXPECT_EQ(list->arms[0].depths, (std::vector<double>{0.5}));
  EXPECT_TRUE(list->arms[0].curve);
  EXPECT_EQ(list->arms[1].method, "caa");
  EXPECT_TRUE(list->arms[1].config.empty());
}

TEST(ArmsTest, NamesEveryMistake) {
  ExpectRefused("{", "not JSON");
  ExpectRefused("[]", "must be an object");
  ExpectRefused("{}", "needs \"arms\"");
  ExpectRefused(R"({"arms": []})", "has no arms");
  ExpectRefused(R"({"arms": [{"name": "a"}]})", "arms[0] needs \"method\"");
  ExpectRefused(R"({"arms": [{"name": "a", "method": "m", "groups": ["g"]}]})", "unknown group \"g\"");
  ExpectRefused(R"({"arms": [{"name": "a", "method": "m", "depths": [1]}]})", "depth");
  ExpectRefused(R"({"arms": [{"name": 1, "method": "m", "typo": 2}]})", "unknown field \"typo\"");
  ExpectRefused(R"({"arms": [{"name": 1, "method": "m", "typo": 2}]})", "wrong type");
  ExpectRefused(R"({"arms": [{"name": "a", "method": "m"}, {"name": "a", "method": "m"}]})", "second \"a\"");
}

TEST(ArmsTest, SelectsGroups) {
  const ArmList list = *ParseArms(R"({
    "groups": [{"id": "g", "title": "G"}, {"id": "h", "title": "H"}], "masking": [{"name": "m"}],
    "arms": [{"name": "a", "method": "m", "groups": ["g"]}, {"name": "b", "method": "m", "groups": ["h"]},
             {"name": "c", "method": "m"}]})");
  const absl::StatusOr<ArmList> selected = SelectGroups(list, {"h", "masking"});
  ASSERT_TRUE(selected.ok());
  ASSERT_EQ(selected->arms.size(), 1u);
  EXPECT_EQ(selected->arms[0].name, "b");
  EXPECT_EQ(selected->groups.size(), 1u);
  EXPECT_EQ(selected->masking.size(), 1u);
  EXPECT_TRUE(SelectGroups(list, {"g"})->masking.empty());
  EXPECT_NE(SelectGroups(list, {"x"}).status().message().find("masking, g, h"), absl::string_view::npos);
}

TEST(ArmsTest, TheShippedListFitsTheMethods) {
  std::ifstream file("tools/study/arms.json");
  const absl::StatusOr<ArmList> list = ParseArms(std::string(std::istreambuf_iterator<char>(file), {}));
  ASSERT_TRUE(list.ok()) << list.status();
  MethodRegistry methods;
  ASSERT_TRUE(RegisterBuiltinMethods(methods).ok());
  const absl::Status status = CheckArms(*list, methods);
  EXPECT_TRUE(status.ok()) << status;
}

TEST(ArmsTest, AConfigOfAnotherMethodIsRefusedBeforeTheRun) {
  MethodRegistry methods;
  ASSERT_TRUE(RegisterBuiltinMethods(methods).ok());
  const auto check = [&](const std::string& arm) {
    return CheckArms(*ParseArms(R"({"arms": [)" + arm + "]}"), methods);
  };
  EXPECT_TRUE(check(R"({"name": "a", "method": "grains", "config": {"k": 3}})").ok());
  EXPECT_FALSE(check(R"({"name": "a", "method": "grains", "config": {"no_field": 3}})").ok());
  EXPECT_FALSE(check(R"({"name": "a", "method": "grains", "config": {"k": -3}})").ok());
  EXPECT_NE(check(R"({"name": "a", "method": "none"})").message().find("grains"), absl::string_view::npos);
}

}  // namespace
}  // namespace trimtab
