#include "tools/trimctl/pairs_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace trimtab {
namespace {

std::string Message(const absl::StatusOr<std::vector<v1::PreferencePair>>& pairs) {
  return std::string(pairs.status().message());
}

TEST(PairsFile, ReadsBothSetsOfNamesAndPromptsOfManyTurns) {
  const auto pairs = ParsePairs(
      "\xEF\xBB\xBF{\"prompt\": \"a\", \"preferred\": \"b\", \"dispreferred\": \"c\", \"weight\": 2}\r\n"
      "\n  \n"
      "{\"question\": [{\"role\": \"system\", \"text\": \"s\"}, {\"role\": \"user\", \"content\": \"é\"}], "
      "\"chosen\": \"b\", \"rejected\": \"c\"}",
      "f");
  ASSERT_TRUE(pairs.ok()) << pairs.status();
  ASSERT_EQ(pairs->size(), 2u);
  const v1::PreferencePair& first = (*pairs)[0];
  ASSERT_EQ(first.prompt_size(), 1);
  EXPECT_EQ(first.prompt(0).role(), v1::ROLE_USER);
  EXPECT_EQ(first.prompt(0).parts(0).text(), "a");
  EXPECT_EQ(first.preferred(), "b");
  EXPECT_EQ(first.dispreferred(), "c");
  EXPECT_EQ(first.weight(), 2);
  const v1::PreferencePair& second = (*pairs)[1];
  ASSERT_EQ(second.prompt_size(), 2);
  EXPECT_EQ(second.prompt(0).role(), v1::ROLE_SYSTEM);
  EXPECT_EQ(second.prompt(1).parts(0).text(), "é");
  EXPECT_EQ(second.weight(), 0);
}

TEST(PairsFile, APairWithoutADispreferredAnswerAsksForLikelihood) {
  const auto pairs = ParsePairs("{\"prompt\": \"a\", \"preferred\": \"b\"}", "f");
  ASSERT_TRUE(pairs.ok()) << pairs.status();
  EXPECT_EQ((*pairs)[0].dispreferred(), "");
}

TEST(PairsFile, NamesFileAndLineOfEveryMistake) {
  const auto pairs = ParsePairs(
      "{\"prompt\": \"a\", \"preferred\": \"b\"}\n"
      "{\"prompt\": 1, \"preferred\": \"\"}\n"
      "\n"
      "[1]\n"
      "{\"prompt\": \"a\"\n"
      "{\"prompt\": \"a\", \"preferred\": \"b\", \"dispreffered\": \"c\"}",
      "my.jsonl");
  EXPECT_EQ(pairs.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message = Message(pairs);
  EXPECT_NE(message.find("my.jsonl:2: \"prompt\" must be a string or a list of turns"), std::string::npos) << message;
  EXPECT_NE(message.find("my.jsonl:2: \"preferred\" must not be empty"), std::string::npos) << message;
  EXPECT_NE(message.find("my.jsonl:4: must be a JSON object"), std::string::npos) << message;
  EXPECT_NE(message.find("my.jsonl:5: is not JSON"), std::string::npos) << message;
  EXPECT_NE(message.find("my.jsonl:6: \"dispreffered\" is not a field"), std::string::npos) << message;
  EXPECT_EQ(message.find("my.jsonl:1"), std::string::npos) << message;
}

TEST(PairsFile, RefusesEachKindOfMistake) {
  const auto refuses = [](const std::string& line, const std::string& why) {
    const std::string message = Message(ParsePairs(line, "f"));
    EXPECT_NE(message.find("f:1: "), std::string::npos) << line << ": " << message;
    EXPECT_NE(message.find(why), std::string::npos) << line << ": " << message;
  };
  refuses("{}", "\"prompt\" is missing");
  refuses("{}", "\"preferred\" is missing");
  refuses(R"({"prompt": "a", "question": "a", "preferred": "b"})", "mean the same");
  refuses(R"({"prompt": "a", "preferred": "b", "weight": -1})", "\"weight\"");
  refuses(R"({"prompt": "a", "preferred": "b", "weight": "1"})", "\"weight\"");
  refuses(R"({"prompt": "a", "preferred": "b", "images": ["x.png"]})", "vision");
  refuses(R"({"prompt": [], "preferred": "b"})", "list of turns");
  refuses(R"({"prompt": ["a"], "preferred": "b"})", "\"prompt\"[0] must be an object");
  refuses(R"({"prompt": [{"role": "robot", "text": "a"}], "preferred": "b"})", "\"prompt\"[0].role must be");
  refuses(R"({"prompt": [{"role": "user"}], "preferred": "b"})", "\"prompt\"[0].text is missing");
  refuses(R"({"prompt": [{"role": "assistant", "text": "a"}], "preferred": "b"})", "must be \"user\" in the last turn");
  refuses(R"({"prompt": [{"role": "user", "text": "a"}, {"role": "system", "text": "a"}], "preferred": "b"})",
          "in the first turn only");
  refuses("{\"prompt\": \"\xFF\", \"preferred\": \"b\"}", "is not JSON in UTF-8");
}

TEST(PairsFile, ReportsTwentyMistakesAndCountsTheOthers) {
  std::string text;
  for (int i = 0; i < 25; ++i) absl::StrAppend(&text, "nonsense\n");
  const std::string message = Message(ParsePairs(text, "f"));
  EXPECT_NE(message.find("f:20: "), std::string::npos);
  EXPECT_EQ(message.find("f:21: "), std::string::npos);
  EXPECT_NE(message.find("and 5 more"), std::string::npos);
}

TEST(PairsFile, ReadsFilesAndSaysWhichCannotBeRead) {
  const std::string path = ::testing::TempDir() + "/pairs.jsonl";
  std::ofstream(path) << "{\"prompt\": \"a\", \"preferred\": \"b\", \"dispreferred\": \"c\"}\n";
  const auto pairs = ReadPairsFile(path);
  ASSERT_TRUE(pairs.ok()) << pairs.status();
  EXPECT_EQ(pairs->size(), 1u);
  unlink(path.c_str());
  EXPECT_EQ(ReadPairsFile(path).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadPairsFile(::testing::TempDir()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(Message(ParsePairs("\n\n", "empty.jsonl")).find("holds no pairs"), std::string::npos);
}

}  // namespace
}  // namespace trimtab
