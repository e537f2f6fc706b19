#include "steering/drift/question_bank.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

namespace trimtab {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr char kTwo[] =
    R"({"subject":"simple_sums","question":"1+1?","choices":["1","2"],"answer":1}
{"subject":"colours","question":"Grass is","choices":["red","green","blue"],"answer":1})";

class Folder {
 public:
  Folder() : path_(fs::path(std::getenv("TEST_TMPDIR")) / "bank") {
    fs::remove_all(path_);
    fs::create_directories(path_ / "test");
    fs::create_directories(path_ / "dev");
  }
  void Write(const std::string& name, const std::string& text) { std::ofstream(path_ / name) << text; }
  std::string path(const std::string& name = "") const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

TEST(QuestionBank, ReadsJsonLines) {
  const auto bank = QuestionBank::FromJsonLines(kTwo, "", "two.jsonl");
  ASSERT_TRUE(bank.ok()) << bank.status();
  ASSERT_EQ(bank->questions().size(), 2u);
  EXPECT_EQ(bank->questions()[1], (Question{"colours", "Grass is", {"red", "green", "blue"}, 1}));
  EXPECT_TRUE(bank->examples("colours").empty());
}

TEST(QuestionBank, PromptIsTheOneOfMmlu) {
  const auto bank = QuestionBank::FromJsonLines(
      kTwo, R"({"subject":"simple_sums","question":"2+2?","choices":["4","5"],"answer":0})", "two.jsonl");
  ASSERT_TRUE(bank.ok()) << bank.status();
  EXPECT_EQ(bank->Prompt(bank->questions()[0], 0),
            "The following are multiple choice questions (with answers) about simple sums.\n\n"
            "1+1?\nA. 1\nB. 2\nAnswer:");
  EXPECT_EQ(bank->Prompt(bank->questions()[0], 5),
            "The following are multiple choice questions (with answers) about simple sums.\n\n"
            "2+2?\nA. 4\nB. 5\nAnswer: A\n\n"
            "1+1?\nA. 1\nB. 2\nAnswer:");
}

TEST(QuestionBank, ReadsTheMmluFolder) {
  Folder folder;
  folder.Write("test/old_maps_test.csv", "\"A, quoted \"\"word\"\"\nover lines\",w,x,y,z,C\nPlain,1,2,3,4,A\r\n");
  folder.Write("test/art_test.csv", "Q,a,b,c,d,D\n");
  folder.Write("dev/art_dev.csv", "E,a,b,c,d,B\n");
  const auto bank = QuestionBank::Load(folder.path());
  ASSERT_TRUE(bank.ok()) << bank.status();
  ASSERT_EQ(bank->questions().size(), 3u);
  EXPECT_EQ(bank->questions()[0].subject, "art");
  EXPECT_EQ(bank->questions()[1], (Question{"old_maps", "A, quoted \"word\"\nover lines", {"w", "x", "y", "z"}, 2}));
  EXPECT_EQ(bank->questions()[2].answer, 0);
  ASSERT_EQ(bank->examples("art").size(), 1u);
  EXPECT_EQ(bank->examples("art")[0].answer, 1);
}

TEST(QuestionBank, ExamplesStandBesideTheFile) {
  Folder folder;
  folder.Write("set.jsonl", kTwo);
  folder.Write("set_dev.jsonl", kTwo);
  const auto bank = QuestionBank::Load(folder.path("set.jsonl"));
  ASSERT_TRUE(bank.ok()) << bank.status();
  EXPECT_EQ(bank->examples("colours").size(), 1u);
}

TEST(QuestionBank, BadInputNamesTheLine) {
  const std::map<std::string, std::string> cases = {
      {"nonsense", "line 1: not a JSON object"},
      {R"({"subject":"s","question":"q","choices":["a","b"]})", "\"answer\" is missing"},
      {R"({"subject":"s","question":"q","choices":["a","b"],"answer":2})", "not the index of a choice"},
      {R"({"subject":"s","question":"q","choices":["a","b"],"answer":-1})", "not the index of a choice"},
      {R"({"subject":"s","question":"q","choices":["a"],"answer":0})", "2 to 10 choices"},
      {R"({"subject":"s","question":"q","choices":["a",3],"answer":0})", "must be a string"},
      {R"({"subject":3,"question":"q","choices":["a","b"],"answer":0})", "must be strings"},
      {R"({"subject":"s","question":"q","choices":"ab","answer":0})", "must be a list"},
      {R"({"subject":"s","question":"q","choices":["a","b"],"answer":"A"})", "must be an index"},
      {R"({"subject":"s","question":"","choices":["a","b"],"answer":0})", "1 to 65536 bytes"},
      {"", "holds no questions"},
  };
  for (const auto& [text, expected] : cases) {
    const auto bank = QuestionBank::FromJsonLines(text, "", "bad.jsonl");
    ASSERT_FALSE(bank.ok()) << text;
    EXPECT_THAT(std::string(bank.status().message()), HasSubstr(expected)) << text;
    EXPECT_THAT(std::string(bank.status().message()), HasSubstr("bad.jsonl"));
  }
  Folder folder;
  folder.Write("test/x_test.csv", "Q,a,b,c,d,E\n");
  EXPECT_THAT(std::string(QuestionBank::Load(folder.path()).status().message()), HasSubstr("line 1"));
  folder.Write("test/x_test.csv", "\"Q,a,b,c,d,A\n");
  EXPECT_THAT(std::string(QuestionBank::Load(folder.path()).status().message()), HasSubstr("never ends"));
  EXPECT_EQ(QuestionBank::Load(folder.path("absent.jsonl")).status().code(), absl::StatusCode::kNotFound);
}

TEST(QuestionBank, SampleIsStratifiedSeededAndBounded) {
  std::string text;
  for (int i = 0; i < 40; ++i) {
    const char* subject = i < 30 ? "large" : i < 37 ? "middle" : "small";
    text += std::string(R"({"subject":")") + subject + R"(","question":"q)" + std::to_string(i) +
            R"(","choices":["a","b"],"answer":0})" + "\n";
  }
  const auto bank = QuestionBank::FromJsonLines(text, "", "set");
  ASSERT_TRUE(bank.ok());
  const std::vector<Question> sample = bank->Sample(12, 7);
  std::map<std::string, int> count;
  std::set<std::string> distinct;
  for (const Question& question : sample) {
    ++count[question.subject];
    distinct.insert(question.question);
  }
  EXPECT_EQ(count, (std::map<std::string, int>{{"large", 5}, {"middle", 4}, {"small", 3}}));
  EXPECT_EQ(distinct.size(), 12u);
  EXPECT_EQ(sample, bank->Sample(12, 7));
  EXPECT_NE(sample, bank->Sample(12, 8));
  EXPECT_EQ(bank->Sample(0, 7), bank->questions());
  EXPECT_EQ(bank->Sample(100, 7), bank->questions());
}

TEST(QuestionBank, DigestCoversEveryPart) {
  const std::string digest = QuestionBank::FromJsonLines(kTwo, "", "x")->digest();
  EXPECT_EQ(QuestionBank::FromJsonLines(kTwo, "", "another origin")->digest(), digest);
  EXPECT_NE(QuestionBank::FromJsonLines(kTwo, kTwo, "x")->digest(), digest);
  std::string changed = kTwo;
  changed.replace(changed.find("\"answer\":1"), 10, "\"answer\":0");
  EXPECT_NE(QuestionBank::FromJsonLines(changed, "", "x")->digest(), digest);
}

TEST(QuestionBank, TheShippedProbeIsWellFormed) {
  const auto bank = QuestionBank::Load("deploy/examples/drift/probe.jsonl");
  ASSERT_TRUE(bank.ok()) << bank.status();
  EXPECT_GE(bank->questions().size(), 100u);
  std::map<std::string, int> subjects;
  std::map<int64_t, int> answers;
  std::set<std::string> distinct;
  for (const Question& question : bank->questions()) {
    ++subjects[question.subject];
    ++answers[question.answer];
    EXPECT_EQ(question.choices.size(), 4u) << question.question;
    EXPECT_TRUE(distinct.insert(question.question).second) << question.question;
    EXPECT_EQ(std::set<std::string>(question.choices.begin(), question.choices.end()).size(), 4u) << question.question;
  }
  EXPECT_GE(subjects.size(), 6u);
  for (const auto& [subject, count] : subjects) EXPECT_GE(bank->examples(subject).size(), 5u) << subject;
  // No letter pays: each is right for a fifth to a third of the questions.
  for (const auto& [answer, count] : answers) {
    EXPECT_GE(5 * count, static_cast<int>(bank->questions().size())) << answer;
    EXPECT_LE(3 * count, static_cast<int>(bank->questions().size())) << answer;
  }
}

}  // namespace
}  // namespace trimtab
