// Requests that hold a name or ask for a page.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/validate.h"

namespace trimtab {
namespace {

constexpr int64_t kDefaultPageSize = 50;
constexpr int64_t kMaxPageSize = 1000;
constexpr int64_t kDefaultAttributions = 20;
constexpr int64_t kMaxAttributions = 200;

absl::string_view ToAbsl(std::string_view text) { return absl::string_view(text.data(), text.size()); }

absl::Status NameError(std::string_view field, std::string_view form) {
  return FieldError(
      {{std::string(field), absl::StrCat("must be ", ToAbsl(form), " with ids of the form ", ToAbsl(kIdPattern))}});
}

// The page of the list `method` below `parent`.
template <typename Request>
absl::StatusOr<ListCall> ParseList(FieldChecker& checker, const PageTokenCodec& codec, std::string_view method,
                                   std::string parent, const Request& request) {
  ListCall call{.parent = std::move(parent)};
  call.scope = absl::StrCat(ToAbsl(method), " ", call.parent);
  call.page =
      ParsePage(checker, codec, call.scope, request.page_size(), request.page_token(), kDefaultPageSize, kMaxPageSize);
  if (!checker.ok()) return checker.status();
  return call;
}

}  // namespace

absl::StatusOr<std::string> ParseGetModelRequest(const v1::GetModelRequest& request) {
  auto model = ParseModelName(request.name());
  if (!model) return NameError("name", "models/{model}");
  return *std::move(model);
}

absl::StatusOr<ObjectiveId> ParseGetObjectiveRequest(const v1::GetObjectiveRequest& request) {
  auto objective = ParseObjectiveName(request.name());
  if (!objective) return NameError("name", "models/{model}/objectives/{objective}");
  return *std::move(objective);
}

absl::StatusOr<RevisionId> ParseGetRevisionRequest(const v1::GetRevisionRequest& request) {
  auto revision = ParseRevisionName(request.name());
  if (!revision) return NameError("name", "models/{model}/objectives/{objective}/revisions/{n}");
  return *std::move(revision);
}

absl::StatusOr<DriftReportId> ParseDriftReportRequest(std::string_view name) {
  auto report = ParseDriftReportName(name);
  if (!report) return NameError("name", "models/{model}/driftReports/{id}");
  return *std::move(report);
}

absl::StatusOr<std::string> ParseGetSteeringMethodRequest(const v1::GetSteeringMethodRequest& request) {
  auto method = ParseSteeringMethodName(request.name());
  if (!method) return NameError("name", "steeringMethods/{method}");
  return *std::move(method);
}

absl::StatusOr<std::string> ParseOperationRequest(std::string_view name) {
  if (!ParseOperationName(name)) return NameError("name", "operations/{id}");
  return std::string(name);
}

absl::StatusOr<ListCall> ParseListModelsRequest(const v1::ListModelsRequest& request, const PageTokenCodec& codec) {
  FieldChecker checker;
  return ParseList(checker, codec, "models", "", request);
}

absl::StatusOr<ListCall> ParseListObjectivesRequest(const v1::ListObjectivesRequest& request,
                                                    const PageTokenCodec& codec) {
  FieldChecker checker;
  ParseModel(checker, "parent", request.parent());
  return ParseList(checker, codec, "objectives", request.parent(), request);
}

absl::StatusOr<ListCall> ParseListRevisionsRequest(const v1::ListRevisionsRequest& request,
                                                   const PageTokenCodec& codec) {
  FieldChecker checker;
  ParseObjective(checker, "parent", request.parent());
  return ParseList(checker, codec, "revisions", request.parent(), request);
}

absl::StatusOr<ListCall> ParseListSteeringMethodsRequest(const v1::ListSteeringMethodsRequest& request,
                                                         const PageTokenCodec& codec) {
  FieldChecker checker;
  return ParseList(checker, codec, "steeringMethods", "", request);
}

absl::StatusOr<ListCall> ParseListDriftReportsRequest(const v1::ListDriftReportsRequest& request,
                                                      const PageTokenCodec& codec) {
  FieldChecker checker;
  ParseModel(checker, "parent", request.parent());
  return ParseList(checker, codec, "driftReports", request.parent(), request);
}

absl::StatusOr<ListCall> ParseListOperationsRequest(const google::longrunning::ListOperationsRequest& request,
                                                    const PageTokenCodec& codec) {
  FieldChecker checker;
  if (!request.name().empty() && request.name() != "operations") {
    checker.Fail("name", "must be empty or \"operations\"");
  }
  if (!request.filter().empty()) checker.Fail("filter", "must be empty: filters are not supported");
  return ParseList(checker, codec, "operations", "", request);
}

absl::StatusOr<AttributionsCall> ParseGetAttributionsRequest(const v1::GetAttributionsRequest& request,
                                                             const PageTokenCodec& codec) {
  FieldChecker checker;
  AttributionsCall call;
  if (const auto revision = ParseRevisionName(request.name())) {
    call.objective = revision->objective;
    call.revision = revision->revision;
  } else if (const auto objective = ParseObjectiveName(request.name())) {
    call.objective = *objective;
  } else {
    checker.Fail("name", "must be the name of an objective or of a revision");
  }
  call.scope = absl::StrCat("attributions ", request.name());
  call.page = ParsePage(checker, codec, call.scope, request.page_size(), request.page_token(), kDefaultAttributions,
                        kMaxAttributions);
  if (!checker.ok()) return checker.status();
  return call;
}

absl::StatusOr<WaitCall> ParseWaitOperationRequest(const google::longrunning::WaitOperationRequest& request) {
  FieldChecker checker;
  WaitCall call{.name = request.name(), .timeout = kMaxOperationWait};
  if (!ParseOperationName(request.name())) checker.Fail("name", "must be operations/{id}");
  if (request.has_timeout()) {
    const auto& timeout = request.timeout();
    if (timeout.seconds() < 0 || timeout.nanos() < 0 || timeout.nanos() > 999'999'999) {
      checker.Fail("timeout", "must be a duration of at least 0");
    }
    call.timeout = std::min(absl::Seconds(timeout.seconds()) + absl::Nanoseconds(timeout.nanos()), kMaxOperationWait);
  }
  if (!checker.ok()) return checker.status();
  return call;
}

}  // namespace trimtab
