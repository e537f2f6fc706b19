#include "steering/drift/question_bank.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <sstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

namespace fs = std::filesystem;
using Examples = std::map<std::string, std::vector<Question>, std::less<>>;

absl::StatusOr<std::string> ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file.good()) return absl::NotFoundError(absl::StrCat("cannot read the question file ", path.string()));
  return std::move(text).str();
}

absl::Status LineError(const std::string& origin, int64_t line, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(origin, ", line ", line, ": ", what));
}

// Empty when the question is well formed.
std::string Fault(const Question& question) {
  if (question.subject.empty() || question.subject.size() > 128) return "\"subject\" must have 1 to 128 bytes";
  if (question.question.empty() || question.question.size() > 65536) return "\"question\" must have 1 to 65536 bytes";
  const int64_t choices = static_cast<int64_t>(question.choices.size());
  if (choices < 2 || choices > kMaxChoices) return absl::StrCat("there must be 2 to ", kMaxChoices, " choices");
  if (question.answer < 0 || question.answer >= choices) return "\"answer\" is not the index of a choice";
  return "";
}

absl::StatusOr<std::vector<Question>> ParseJsonLines(std::string_view text, const std::string& origin) {
  std::vector<Question> questions;
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object()) return LineError(origin, number, "not a JSON object");
    Question question;
    for (const char* key : {"subject", "question", "choices", "answer"}) {
      if (!json.contains(key)) return LineError(origin, number, absl::StrCat("\"", key, "\" is missing"));
    }
    if (!json["subject"].is_string() || !json["question"].is_string()) {
      return LineError(origin, number, "\"subject\" and \"question\" must be strings");
    }
    question.subject = json["subject"].get<std::string>();
    question.question = json["question"].get<std::string>();
    if (!json["choices"].is_array()) return LineError(origin, number, "\"choices\" must be a list");
    for (const nlohmann::json& choice : json["choices"]) {
      if (!choice.is_string()) return LineError(origin, number, "each choice must be a string");
      question.choices.push_back(choice.get<std::string>());
    }
    if (!json["answer"].is_number_integer()) return LineError(origin, number, "\"answer\" must be an index");
    question.answer = json["answer"].get<int64_t>();
    if (const std::string fault = Fault(question); !fault.empty()) return LineError(origin, number, fault);
    questions.push_back(std::move(question));
  }
  return questions;
}

// One record of RFC 4180 from the front of `text`; quoted fields may hold line breaks. False when a quote never closes.
bool NextCsvRecord(std::string_view& text, std::vector<std::string>& fields) {
  fields.assign(1, "");
  bool quoted = false;
  size_t i = 0;
  for (; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c != '"') {
        fields.back() += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        fields.back() += '"';
        ++i;
      } else {
        quoted = false;
      }
    } else if (c == '"' && fields.back().empty()) {
      quoted = true;
    } else if (c == ',') {
      fields.emplace_back();
    } else if (c == '\n') {
      ++i;
      break;
    } else if (c != '\r') {
      fields.back() += c;
    }
  }
  text.remove_prefix(i);
  return !quoted;
}

absl::StatusOr<std::vector<Question>> ParseCsv(std::string_view text, const std::string& subject,
                                               const std::string& origin) {
  std::vector<Question> questions;
  std::vector<std::string> fields;
  for (int64_t record = 1; !text.empty(); ++record) {
    if (!NextCsvRecord(text, fields)) return LineError(origin, record, "a quoted field never ends");
    if (fields.size() == 1 && fields[0].empty()) continue;
    if (fields.size() < 4) return LineError(origin, record, "a record needs a question, choices and a letter");
    const std::string letter(absl::StripAsciiWhitespace(fields.back()));
    if (letter.size() != 1) return LineError(origin, record, "the last field must be the letter of the answer");
    Question question{
        .subject = subject,
        .question = std::move(fields.front()),
        .choices = {std::make_move_iterator(fields.begin() + 1), std::make_move_iterator(fields.end() - 1)},
        .answer = letter[0] - 'A'};
    if (const std::string fault = Fault(question); !fault.empty()) return LineError(origin, record, fault);
    questions.push_back(std::move(question));
  }
  return questions;
}

// All <subject><suffix> files of a folder, in name order.
absl::StatusOr<std::vector<Question>> LoadCsvFolder(const fs::path& folder, const std::string& suffix) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    if (name.size() > suffix.size() && name.ends_with(suffix)) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<Question> questions;
  for (const fs::path& file : files) {
    const std::string name = file.filename();
    TRIMTAB_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
    TRIMTAB_ASSIGN_OR_RETURN(std::vector<Question> part,
                             ParseCsv(text, name.substr(0, name.size() - suffix.size()), file.string()));
    questions.insert(questions.end(), std::make_move_iterator(part.begin()), std::make_move_iterator(part.end()));
  }
  return questions;
}

Examples BySubject(std::vector<Question> questions) {
  Examples examples;
  for (Question& question : questions) examples[question.subject].push_back(std::move(question));
  return examples;
}

void AppendQuestion(const Question& question, std::string& prompt) {
  prompt += question.question;
  for (size_t i = 0; i < question.choices.size(); ++i) {
    absl::StrAppend(&prompt, "\n", std::string(1, static_cast<char>('A' + i)), ". ", question.choices[i]);
  }
  prompt += "\nAnswer:";
}

}  // namespace

QuestionBank::QuestionBank(std::vector<Question> questions, Examples examples)
    : questions_(std::move(questions)), examples_(std::move(examples)) {
  Sha256 hash;
  const auto add = [&hash](const Question& question) {
    hash.UpdateField(question.subject).UpdateField(question.question);
    for (const std::string& choice : question.choices) hash.UpdateField(choice);
    hash.UpdateField(std::to_string(question.answer));
  };
  for (const Question& question : questions_) add(question);
  hash.UpdateField("examples");
  for (const auto& [subject, solved] : examples_) {
    for (const Question& question : solved) add(question);
  }
  digest_ = hash.FinishHex();
}

absl::StatusOr<QuestionBank> QuestionBank::FromJsonLines(std::string_view questions, std::string_view examples,
                                                         const std::string& origin) {
  TRIMTAB_ASSIGN_OR_RETURN(std::vector<Question> parsed, ParseJsonLines(questions, origin));
  if (parsed.empty()) return absl::InvalidArgumentError(absl::StrCat(origin, " holds no questions"));
  TRIMTAB_ASSIGN_OR_RETURN(std::vector<Question> solved, ParseJsonLines(examples, absl::StrCat(origin, " (examples)")));
  return QuestionBank(std::move(parsed), BySubject(std::move(solved)));
}

absl::StatusOr<QuestionBank> QuestionBank::Load(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    TRIMTAB_ASSIGN_OR_RETURN(std::vector<Question> questions, LoadCsvFolder(fs::path(path) / "test", "_test.csv"));
    if (questions.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(path, " holds no questions: expected test/<subject>_test.csv"));
    }
    TRIMTAB_ASSIGN_OR_RETURN(std::vector<Question> solved, LoadCsvFolder(fs::path(path) / "dev", "_dev.csv"));
    return QuestionBank(std::move(questions), BySubject(std::move(solved)));
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::string questions, ReadFile(path));
  const fs::path file(path);
  const fs::path dev = file.parent_path() / absl::StrCat(file.stem().string(), "_dev", file.extension().string());
  std::string examples;
  if (fs::exists(dev, error)) {
    TRIMTAB_ASSIGN_OR_RETURN(examples, ReadFile(dev));
  }
  return FromJsonLines(questions, examples, path);
}

const std::vector<Question>& QuestionBank::examples(std::string_view subject) const {
  static const std::vector<Question>& none = *new std::vector<Question>();
  const auto found = examples_.find(subject);
  return found == examples_.end() ? none : found->second;
}

std::vector<Question> QuestionBank::Sample(int64_t max_items, uint64_t seed) const {
  std::map<std::string_view, std::vector<size_t>> by_subject;
  for (size_t i = 0; i < questions_.size(); ++i) by_subject[questions_[i].subject].push_back(i);
  const int64_t total = static_cast<int64_t>(questions_.size());
  const int64_t wanted = max_items <= 0 ? total : std::min(max_items, total);
  std::mt19937_64 random(seed);
  for (auto& [subject, indices] : by_subject) {
    // Fisher-Yates with an explicit draw: std::shuffle's order is not fixed by the standard.
    for (size_t i = indices.size(); i > 1; --i) std::swap(indices[i - 1], indices[random() % i]);
  }
  // Rounds over the subjects until enough are drawn: small subjects run dry, the others go on.
  std::vector<size_t> chosen;
  for (size_t round = 0; static_cast<int64_t>(chosen.size()) < wanted; ++round) {
    for (const auto& [subject, indices] : by_subject) {
      if (round < indices.size() && static_cast<int64_t>(chosen.size()) < wanted) chosen.push_back(indices[round]);
    }
  }
  std::sort(chosen.begin(), chosen.end());
  std::vector<Question> sample;
  sample.reserve(chosen.size());
  for (size_t index : chosen) sample.push_back(questions_[index]);
  return sample;
}

std::string QuestionBank::Prompt(const Question& question, int64_t shots) const {
  std::string subject = question.subject;
  std::replace(subject.begin(), subject.end(), '_', ' ');
  std::string prompt =
      absl::StrCat("The following are multiple choice questions (with answers) about ", subject, ".\n\n");
  const std::vector<Question>& solved = examples(question.subject);
  for (int64_t i = 0; i < std::min<int64_t>(shots, static_cast<int64_t>(solved.size())); ++i) {
    AppendQuestion(solved[i], prompt);
    absl::StrAppend(&prompt, ChoiceText(solved[i].answer), "\n\n");
  }
  AppendQuestion(question, prompt);
  return prompt;
}

}  // namespace trimtab
