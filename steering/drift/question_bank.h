// Multiple-choice questions for drift measurements: loading, sampling, prompts. No torch. Immutable after loading.
#ifndef TRIMTAB_STEERING_DRIFT_QUESTION_BANK_H_
#define TRIMTAB_STEERING_DRIFT_QUESTION_BANK_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace trimtab {

struct Question {
  std::string subject;
  std::string question;
  std::vector<std::string> choices;  // 2 to 10
  int64_t answer = 0;                // index into choices

  bool operator==(const Question&) const = default;
};

inline constexpr int64_t kMaxChoices = 10;

// A named set of questions with solved examples per subject.
class QuestionBank {
 public:
  // `path` is a file of JSON lines {"subject", "question", "choices", "answer" (index)}, with examples in the file of
  // the same stem and "_dev" before the extension if there is one; or a folder in the MMLU layout:
  // test/<subject>_test.csv and dev/<subject>_dev.csv with the columns question, one per choice, letter of the answer,
  // without a header. Errors: NOT_FOUND; INVALID_ARGUMENT names file, line and what is wrong with it.
  static absl::StatusOr<QuestionBank> Load(const std::string& path);
  // From the text of JSON-lines files; `origin` names them in errors.
  static absl::StatusOr<QuestionBank> FromJsonLines(std::string_view questions, std::string_view examples,
                                                    const std::string& origin);

  const std::vector<Question>& questions() const { return questions_; }
  // Solved examples of a subject in file order; empty without.
  const std::vector<Question>& examples(std::string_view subject) const;
  // sha256 hex over questions and examples.
  const std::string& digest() const { return digest_; }

  // At most `max_items` questions (0: all), drawn evenly over the subjects: each subject gives its share, the remainder
  // goes to subjects in name order. The same bank, count and seed give the same questions in the same order.
  std::vector<Question> Sample(int64_t max_items, uint64_t seed) const;

  // The prompt of MMLU (Hendrycks et al. 2021; steering.md C1): header, up to `shots` solved examples, the question,
  // and "Answer:". The answer is the letter of a choice with a space before it: ChoiceText(0) is " A".
  std::string Prompt(const Question& question, int64_t shots) const;
  static std::string ChoiceText(int64_t choice) { return {' ', static_cast<char>('A' + choice)}; }

 private:
  QuestionBank(std::vector<Question> questions, std::map<std::string, std::vector<Question>, std::less<>> examples);

  std::vector<Question> questions_;
  std::map<std::string, std::vector<Question>, std::less<>> examples_;
  std::string digest_;
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_DRIFT_QUESTION_BANK_H_
