#include "tools/study/data_set.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>

namespace trimtab {
namespace {

class DataSetTest : public ::testing::Test {
 protected:
  // A file of pairs numbered from `first`.
  static std::string Write(const std::string& name, int first, int count) {
    const std::string path = ::testing::TempDir() + "/" + name;
    std::ofstream file(path);
    for (int i = first; i < first + count; ++i) {
      file << R"({"prompt": "p)" << i << R"(", "preferred": "y", "dispreferred": "n"})"
           << "\n";
    }
    return path;
  }
  static std::set<std::string> Prompts(const std::vector<PreferencePair>& pairs) {
    std::set<std::string> prompts;
    for (const PreferencePair& pair : pairs) prompts.insert(pair.prompt.at(0).text);
    return prompts;
  }
};

TEST_F(DataSetTest, DealsDisjointPartsBySeed) {
  const std::string path = Write("numbers.train.jsonl", 0, 30);
  const absl::StatusOr<DataSet> data = ReadDataSet(path, {.training = 8, .validation = 4, .test = 10}, 1);
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->name, "numbers");
  EXPECT_EQ(data->pairs.size(), 12u);
  EXPECT_EQ(data->test.size(), 10u);
  std::set<std::string> all = Prompts(data->pairs);
  all.merge(Prompts(data->test));
  EXPECT_EQ(all.size(), 22u);
  EXPECT_EQ(Prompts(ReadDataSet(path, {8, 4, 10}, 1)->test), Prompts(data->test));
  EXPECT_NE(Prompts(ReadDataSet(path, {8, 4, 10}, 2)->test), Prompts(data->test));
  EXPECT_EQ(Prompts(ReadDataSet(path, {4, 4, 10}, 1)->test), Prompts(data->test)) << "whatever the fit takes";
}

TEST_F(DataSetTest, FilesAreJoinedAndPairsCountOnce) {
  const std::string first = Write("joined.train.jsonl", 0, 10), second = Write("joined.held_out.jsonl", 5, 10);
  EXPECT_TRUE(ReadDataSet(first + "+" + second, {5, 2, 8}, 1).ok());
  const absl::StatusOr<DataSet> more = ReadDataSet(first + "+" + second, {5, 2, 9}, 1);
  EXPECT_EQ(more.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(more.status().message().find("holds 15 pairs, 16 are needed"), absl::string_view::npos) << more.status();
}

TEST_F(DataSetTest, NeedsTwoAnswers) {
  const std::string path = ::testing::TempDir() + "/one.jsonl";
  std::ofstream(path) << R"({"prompt": "p", "preferred": "y"})"
                      << "\n";
  EXPECT_EQ(ReadDataSet(path, {1, 0, 0}, 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadDataSet(path + ".none", {1, 0, 0}, 1).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace trimtab
