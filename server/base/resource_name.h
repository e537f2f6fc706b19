// Names of resources (AIP-122): models/{m}, models/{m}/objectives/{o}, .../revisions/{n}, models/{m}/driftReports/{id},
// steeringMethods/{method}, operations/{id}. Parsing is strict: anything else is nullopt. Any thread.
#ifndef TRIMTAB_SERVER_BASE_RESOURCE_NAME_H_
#define TRIMTAB_SERVER_BASE_RESOURCE_NAME_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace trimtab {

// What people read when an id is refused.
inline constexpr std::string_view kIdPattern = "[a-z]([a-z0-9-]{0,61}[a-z0-9])?";

// Whether `id` matches kIdPattern: 1 to 63 characters.
bool IsValidId(std::string_view id);
// The id nearest to free text ("SmolLM2-135M Instruct.gguf" -> "smollm2-135m-instruct-gguf"); "model" when nothing is
// left.
std::string MakeId(std::string_view text);

std::string ModelName(std::string_view model);
// The id of models/{m}.
std::optional<std::string> ParseModelName(std::string_view name);

struct ObjectiveId {
  std::string model, objective;

  std::string model_name() const { return ModelName(model); }
  std::string name() const;
  bool operator==(const ObjectiveId&) const = default;
};
std::optional<ObjectiveId> ParseObjectiveName(std::string_view name);

struct RevisionId {
  ObjectiveId objective;
  int64_t revision = 0;  // from 1

  std::string name() const;
  bool operator==(const RevisionId&) const = default;
};
std::optional<RevisionId> ParseRevisionName(std::string_view name);

struct DriftReportId {
  std::string model, report;

  std::string model_name() const { return ModelName(model); }
  std::string name() const;
  bool operator==(const DriftReportId&) const = default;
};
std::optional<DriftReportId> ParseDriftReportName(std::string_view name);

std::string SteeringMethodName(std::string_view method);
std::optional<std::string> ParseSteeringMethodName(std::string_view name);

std::string OperationName(std::string_view id);
std::optional<std::string> ParseOperationName(std::string_view name);

// What a steering selection's text names: an objective and perhaps a revision.
struct ObjectiveReference {
  ObjectiveId objective;
  std::optional<int64_t> revision;

  bool operator==(const ObjectiveReference&) const = default;
};
// Accepts "x" and "x@3" (of `model`, an id), and full names of objectives and revisions with or without "@3".
std::optional<ObjectiveReference> ParseObjectiveReference(std::string_view model, std::string_view text);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_BASE_RESOURCE_NAME_H_
