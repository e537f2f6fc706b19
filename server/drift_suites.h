// The question sets and the neutral text that drift is measured with, loaded once at start. No torch. Const afterwards.
#ifndef TRIMTAB_SERVER_DRIFT_SUITES_H_
#define TRIMTAB_SERVER_DRIFT_SUITES_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "steering/drift/question_bank.h"

namespace trimtab {

class DriftSuites {
 public:
  // `specs`: "name=path" each; the first is the default. `neutral_text`: path of a UTF-8 file, empty for none. Errors
  // name the spec and what is wrong with it.
  static absl::StatusOr<DriftSuites> Load(const std::vector<std::string>& specs, const std::string& neutral_text);

  // Null when there is none.
  const QuestionBank* Find(std::string_view name) const;
  // Default first.
  const std::vector<std::string>& names() const { return names_; }
  const std::string& neutral_text() const { return neutral_text_; }

 private:
  std::vector<std::string> names_;
  std::map<std::string, QuestionBank, std::less<>> banks_;
  std::string neutral_text_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_DRIFT_SUITES_H_
