#include "server/drift_suites.h"

#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/resource_name.h"

namespace trimtab {

absl::StatusOr<DriftSuites> DriftSuites::Load(const std::vector<std::string>& specs, const std::string& neutral_text) {
  DriftSuites suites;
  for (const std::string& spec : specs) {
    const size_t equals = spec.find('=');
    if (equals == std::string::npos || !IsValidId(std::string_view(spec).substr(0, equals))) {
      return absl::InvalidArgumentError(absl::StrCat(
          "drift suite \"", spec, "\" is not name=path with a name of lower-case letters, digits and '-'"));
    }
    const std::string name = spec.substr(0, equals);
    absl::StatusOr<QuestionBank> bank = QuestionBank::Load(spec.substr(equals + 1));
    if (!bank.ok()) {
      return absl::Status(bank.status().code(), absl::StrCat("drift suite \"", name, "\": ", bank.status().message()));
    }
    if (!suites.banks_.emplace(name, *std::move(bank)).second) {
      return absl::InvalidArgumentError(absl::StrCat("drift suite \"", name, "\" is given twice"));
    }
    suites.names_.push_back(name);
  }
  if (!neutral_text.empty()) {
    std::ifstream file(neutral_text, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    if (!file.good()) return absl::NotFoundError(absl::StrCat("cannot read the neutral text ", neutral_text));
    suites.neutral_text_ = std::move(text).str();
  }
  return suites;
}

const QuestionBank* DriftSuites::Find(std::string_view name) const {
  const auto found = banks_.find(name);
  return found == banks_.end() ? nullptr : &found->second;
}

}  // namespace trimtab
