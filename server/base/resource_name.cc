#include "server/base/resource_name.h"

#include <cstddef>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace trimtab {
namespace {

constexpr size_t kMaxIdLength = 63;

absl::string_view ToAbsl(std::string_view text) { return absl::string_view(text.data(), text.size()); }

bool IsLower(char c) { return c >= 'a' && c <= 'z'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// The ids of a name of the form collections[0]/id/collections[1]/id/...; nullopt for any other form. Ids are not
// checked.
std::optional<std::vector<std::string>> SplitName(std::string_view name,
                                                  std::initializer_list<std::string_view> collections) {
  const std::vector<std::string> parts = absl::StrSplit(ToAbsl(name), '/');
  if (parts.size() != 2 * collections.size()) return std::nullopt;
  std::vector<std::string> ids;
  size_t i = 0;
  for (const std::string_view collection : collections) {
    if (parts[i] != collection) return std::nullopt;
    ids.push_back(parts[i + 1]);
    i += 2;
  }
  return ids;
}

// 1, 2, ... without sign, blanks or leading zeros.
std::optional<int64_t> ParseRevisionNumber(std::string_view text) {
  if (text.empty() || text.front() < '1' || text.front() > '9' || text.size() > 18) return std::nullopt;
  for (const char c : text) {
    if (!IsDigit(c)) return std::nullopt;
  }
  int64_t number = 0;
  if (!absl::SimpleAtoi(ToAbsl(text), &number)) return std::nullopt;
  return number;
}

std::optional<std::string> ParseSingle(std::string_view name, std::string_view collection) {
  const auto ids = SplitName(name, {collection});
  if (!ids || !IsValidId((*ids)[0])) return std::nullopt;
  return (*ids)[0];
}

}  // namespace

bool IsValidId(std::string_view id) {
  if (id.empty() || id.size() > kMaxIdLength || !IsLower(id.front()) || id.back() == '-') return false;
  for (const char c : id) {
    if (!IsLower(c) && !IsDigit(c) && c != '-') return false;
  }
  return true;
}

std::string MakeId(std::string_view text) {
  std::string id;
  for (const char c : text) {
    const char lower = absl::ascii_tolower(static_cast<unsigned char>(c));
    if (IsLower(lower) || (IsDigit(lower) && !id.empty())) {
      id += lower;
    } else if (!id.empty() && id.back() != '-') {
      id += '-';
    }
    if (id.size() == kMaxIdLength) break;
  }
  while (!id.empty() && id.back() == '-') id.pop_back();
  return id.empty() ? "model" : id;
}

std::string ModelName(std::string_view model) { return absl::StrCat("models/", ToAbsl(model)); }

std::optional<std::string> ParseModelName(std::string_view name) { return ParseSingle(name, "models"); }

std::string ObjectiveId::name() const { return absl::StrCat("models/", model, "/objectives/", objective); }

std::optional<ObjectiveId> ParseObjectiveName(std::string_view name) {
  const auto ids = SplitName(name, {"models", "objectives"});
  if (!ids || !IsValidId((*ids)[0]) || !IsValidId((*ids)[1])) return std::nullopt;
  return ObjectiveId{.model = (*ids)[0], .objective = (*ids)[1]};
}

std::string RevisionId::name() const { return absl::StrCat(objective.name(), "/revisions/", revision); }

std::optional<RevisionId> ParseRevisionName(std::string_view name) {
  const auto ids = SplitName(name, {"models", "objectives", "revisions"});
  if (!ids || !IsValidId((*ids)[0]) || !IsValidId((*ids)[1])) return std::nullopt;
  const auto revision = ParseRevisionNumber((*ids)[2]);
  if (!revision) return std::nullopt;
  return RevisionId{.objective = {.model = (*ids)[0], .objective = (*ids)[1]}, .revision = *revision};
}

std::string DriftReportId::name() const { return absl::StrCat("models/", model, "/driftReports/", report); }

std::optional<DriftReportId> ParseDriftReportName(std::string_view name) {
  const auto ids = SplitName(name, {"models", "driftReports"});
  if (!ids || !IsValidId((*ids)[0]) || !IsValidId((*ids)[1])) return std::nullopt;
  return DriftReportId{.model = (*ids)[0], .report = (*ids)[1]};
}

std::string SteeringMethodName(std::string_view method) { return absl::StrCat("steeringMethods/", ToAbsl(method)); }

std::optional<std::string> ParseSteeringMethodName(std::string_view name) {
  const auto ids = SplitName(name, {"steeringMethods"});
  if (!ids || (*ids)[0].empty() || (*ids)[0].size() > kMaxIdLength) return std::nullopt;
  for (const char c : (*ids)[0]) {
    if (!IsLower(c) && !IsDigit(c) && c != '_' && c != '-') return std::nullopt;
  }
  return (*ids)[0];
}

std::string OperationName(std::string_view id) { return absl::StrCat("operations/", ToAbsl(id)); }

std::optional<std::string> ParseOperationName(std::string_view name) { return ParseSingle(name, "operations"); }

std::optional<ObjectiveReference> ParseObjectiveReference(std::string_view model, std::string_view text) {
  if (const auto revision = ParseRevisionName(text)) {
    return ObjectiveReference{.objective = revision->objective, .revision = revision->revision};
  }
  ObjectiveReference reference;
  std::string_view objective = text;
  if (const size_t at = text.find('@'); at != std::string_view::npos) {
    objective = text.substr(0, at);
    reference.revision = ParseRevisionNumber(text.substr(at + 1));
    if (!reference.revision) return std::nullopt;
  }
  if (const auto full = ParseObjectiveName(objective)) {
    reference.objective = *full;
  } else if (IsValidId(objective)) {
    reference.objective = {.model = std::string(model), .objective = std::string(objective)};
  } else {
    return std::nullopt;
  }
  return reference;
}

}  // namespace trimtab
