// The methods of ObjectiveService that only read.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/rpc/objective_service.h"
#include "server/rpc/to_proto.h"
#include "server/rpc/unary.h"

namespace trimtab {

grpc::ServerUnaryReactor* ObjectiveServiceImpl::GetObjective(grpc::CallbackServerContext* context,
                                                             const v1::GetObjectiveRequest* request,
                                                             v1::Objective* response) {
  return RunUnary(parts_.executor, context, [=, this]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveId id, ParseGetObjectiveRequest(*request));
    TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveRecord record, parts_.registry.GetObjective(id.name()));
    TRIMTAB_ASSIGN_OR_RETURN(*response, LoadObjective(parts_.registry, record));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::ListObjectives(grpc::CallbackServerContext* context,
                                                               const v1::ListObjectivesRequest* request,
                                                               v1::ListObjectivesResponse* response) {
  return RunUnary(parts_.executor, context, [=, this]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const ListCall call, ParseListObjectivesRequest(*request, parts_.page_tokens));
    TRIMTAB_ASSIGN_OR_RETURN(
        const std::vector<ObjectiveRecord> records,
        parts_.registry.ListObjectives(call.parent, {.after = call.page.after, .limit = call.page.size + 1}));
    // A model that is not loaded keeps its objectives.
    if (records.empty()) TRIMTAB_RETURN_IF_ERROR(parts_.models.Describe(*ParseModelName(call.parent)).status());
    for (const ObjectiveRecord& record : records) {
      if (response->objectives_size() == call.page.size) {
        response->set_next_page_token(parts_.page_tokens.Encode(call.scope, response->objectives().rbegin()->name()));
        break;
      }
      TRIMTAB_ASSIGN_OR_RETURN(*response->add_objectives(), LoadObjective(parts_.registry, record));
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::ListRevisions(grpc::CallbackServerContext* context,
                                                              const v1::ListRevisionsRequest* request,
                                                              v1::ListRevisionsResponse* response) {
  return RunUnary(parts_.executor, context, [=, this]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const ListCall call, ParseListRevisionsRequest(*request, parts_.page_tokens));
    TRIMTAB_RETURN_IF_ERROR(parts_.registry.GetObjective(call.parent).status());
    int64_t after = 0;
    if (!call.page.after.empty() && !absl::SimpleAtoi(call.page.after, &after)) {
      return FieldError({{"page_token", "is not a token of this list"}});
    }
    TRIMTAB_ASSIGN_OR_RETURN(const std::vector<RevisionRecord> records,
                             parts_.registry.ListRevisions(call.parent, after, call.page.size + 1));
    for (const RevisionRecord& record : records) {
      if (response->revisions_size() == call.page.size) {
        response->set_next_page_token(parts_.page_tokens.Encode(call.scope, absl::StrCat(after)));
        break;
      }
      *response->add_revisions() = ToProto(record);
      after = record.revision;
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::GetRevision(grpc::CallbackServerContext* context,
                                                            const v1::GetRevisionRequest* request,
                                                            v1::RevisionSummary* response) {
  return RunUnary(parts_.executor, context, [=, this]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const RevisionId id, ParseGetRevisionRequest(*request));
    TRIMTAB_ASSIGN_OR_RETURN(const RevisionRecord record,
                             FindRevision(parts_.registry, id.objective.name(), id.revision));
    *response = ToProto(record);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::ListSteeringMethods(grpc::CallbackServerContext* context,
                                                                    const v1::ListSteeringMethodsRequest* request,
                                                                    v1::ListSteeringMethodsResponse* response) {
  return RunUnary(parts_.executor, context, [=, this]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const ListCall call, ParseListSteeringMethodsRequest(*request, parts_.page_tokens));
    std::string last;
    for (const MethodInfo& method : parts_.methods.List()) {
      if (method.id <= call.page.after) continue;
      if (response->steering_methods_size() == call.page.size) {
        response->set_next_page_token(parts_.page_tokens.Encode(call.scope, last));
        break;
      }
      *response->add_steering_methods() = ToProto(method);
      last = method.id;
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::GetSteeringMethod(grpc::CallbackServerContext* context,
                                                                  const v1::GetSteeringMethodRequest* request,
                                                                  v1::SteeringMethod* response) {
  return RunUnary(parts_.executor, context, [=, this]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const std::string id, ParseGetSteeringMethodRequest(*request));
    const MethodInfo* const method = parts_.methods.Find(id);
    if (method == nullptr) return NotFoundError(kResourceNotFound, "steeringMethod", request->name());
    *response = ToProto(*method);
    return absl::OkStatus();
  });
}

}  // namespace trimtab
