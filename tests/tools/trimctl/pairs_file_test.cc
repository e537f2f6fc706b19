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
}

TEST(PairsFile, SaysWhatIsWrongWithALineThatIsNotJson) {
  const auto refuses = [](const std::string& line, const std::string& why) {
    const std::string message = Message(ParsePairs("\n" + line + "\n", "f"));
    EXPECT_EQ(message, "f:2: " + why) << line;
  };
  refuses("{\"prompt\": \"\xFF\", \"preferred\": \"b\"}", "is not UTF-8 at byte 13; save the file as UTF-8");
  refuses("{\"prompt\": \"a\",", "is not JSON: it ends too early, after byte 15 (an object must be on one line)");
  refuses("{'prompt': 'a'}", "is not JSON, at byte 2");
  refuses(R"({"prompt": "a", "preferred": "b", "weight": 1e999})", "holds a number that is too large");
  refuses(R"({"prompt": "a", "preferred": "b", "prompt": "c"})", "\"prompt\" is there twice; keep one");
  refuses(R"({"prompt": [{"role": "user", "text": "a", "role": "user"}], "preferred": "b"})",
          "\"role\" is there twice; keep one");
  refuses(std::string(100, '['), "is nested deeper than 8 levels");
}

TEST(PairsFile, RefusesWhatTheServerWouldNotTake) {
  const auto refuses = [](const std::string& text, const std::string& why) {
    const std::string message = Message(ParsePairs(text, "f"));
    EXPECT_NE(message.find(why), std::string::npos) << message;
    EXPECT_LT(message.size(), 1000u);
  };
  const std::string answer(65'537, 'x'), prompt((1 << 20) + 1, 'x');
  refuses(R"({"prompt": "a", "preferred": ")" + answer + "\"}",
          "f:1: \"preferred\" has 65537 bytes of UTF-8, at most 65536 are taken");
  refuses(R"({"prompt": ")" + prompt + R"(", "preferred": "b"})", "f:1: \"prompt\" has 1048577 bytes");
  refuses(R"({"prompt": "a", "preferred": "b"})"
          "\n" +
              std::string(8 << 20, ' ') + "x",
          "f:2: has 8388609 bytes, at most");
  std::string turns = R"({"role": "user", "text": "a"})";
  for (int i = 1; i < 65; ++i) turns += R"(, {"role": "user", "text": "a"})";
  refuses(R"({"preferred": "b", "prompt": [)" + turns + "]}", "\"prompt\" has 65 turns, at most 64");
  refuses(
      "{\"prompt\": \"a\", \"preferred\": \"b\", \"dispreferred\": \"c\"}\n"
      "{\"prompt\": \"a\", \"preferred\": \"b\", \"dispreferred\": \"b\"}",
      "f:2: the two answers are the same");
  refuses(
      "{\"prompt\": \"a\", \"preferred\": \"b\", \"dispreferred\": \"c\"}\n"
      "{\"prompt\": \"a\", \"preferred\": \"b\"}",
      "f:2: has no dispreferred answer, the first pair has one");
  refuses(
      "{\"prompt\": \"a\", \"preferred\": \"b\"}\n"
      "{\"prompt\": \"a\", \"preferred\": \"b\", \"dispreferred\": \"c\"}",
      "f:2: has a dispreferred answer, the first pair has none");
  // Names that are no fields, as a message may hold them.
  refuses("{\"prompt\": \"a\", \"preferred\": \"b\", \"\\u001b[2J" + std::string(100, 'n') + "\": 1}",
          "\"\\x1b[2J" + std::string(36, 'n') + "...\" is not a field");
  std::string many;
  for (int i = 0; i < 10'002; ++i) absl::StrAppend(&many, R"({"prompt": "a", "preferred": "b"})", "\n");
  refuses(many, "f:10001: is one pair too many: at most 10000 are taken");
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
