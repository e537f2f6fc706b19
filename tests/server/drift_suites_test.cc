#include "server/drift_suites.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

namespace trimtab {
namespace {

std::string Write(const std::string& name, const std::string& text) {
  const std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path) << text;
  return path;
}

constexpr char kQuestion[] = R"({"subject":"a","question":"1+1?","choices":["2","3"],"answer":0})";

TEST(DriftSuites, TheFirstIsTheDefault) {
  const std::string path = Write("probe.jsonl", kQuestion);
  const auto suites = DriftSuites::Load({"zeta=" + path, "alpha=" + path}, Write("neutral.txt", "text"));
  ASSERT_TRUE(suites.ok()) << suites.status();
  EXPECT_EQ(suites->names(), (std::vector<std::string>{"zeta", "alpha"}));
  ASSERT_NE(suites->Find("alpha"), nullptr);
  EXPECT_EQ(suites->Find("alpha")->questions().size(), 1u);
  EXPECT_EQ(suites->Find("none"), nullptr);
  EXPECT_EQ(suites->neutral_text(), "text");
}

TEST(DriftSuites, NothingIsNeeded) {
  const auto suites = DriftSuites::Load({}, "");
  ASSERT_TRUE(suites.ok());
  EXPECT_TRUE(suites->names().empty());
  EXPECT_TRUE(suites->neutral_text().empty());
}

TEST(DriftSuites, ErrorsNameTheSuite) {
  const std::string path = Write("good.jsonl", kQuestion), broken = Write("broken.jsonl", "{");
  const auto error = [](const std::vector<std::string>& specs, const std::string& text = "") {
    return std::string(DriftSuites::Load(specs, text).status().message());
  };
  EXPECT_NE(error({path}).find("name=path"), std::string::npos);
  EXPECT_NE(error({"Bad=" + path}).find("name=path"), std::string::npos);
  EXPECT_NE(error({"a=" + path, "a=" + path}).find("twice"), std::string::npos);
  EXPECT_NE(error({"a=/nowhere/x.jsonl"}).find("\"a\""), std::string::npos);
  EXPECT_NE(error({"a=" + broken}).find("\"a\""), std::string::npos);
  EXPECT_NE(error({}, "/nowhere/text").find("/nowhere/text"), std::string::npos);
}

}  // namespace
}  // namespace trimtab
