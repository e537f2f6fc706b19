#include "server/rpc/objective_service.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/rpc/to_proto.h"
#include "server/rpc/unary.h"

namespace trimtab {
namespace {

constexpr int kModifyAttempts = 8;

}  // namespace

template <typename Change>
absl::Status ObjectiveServiceImpl::Modify(const ObjectiveId& id, const std::string& etag, v1::Objective* response,
                                          Change change) {
  for (int attempt = 1;; ++attempt) {
    TRIMTAB_ASSIGN_OR_RETURN(ObjectiveRecord record, parts_.registry.GetObjective(id.name()));
    TRIMTAB_RETURN_IF_ERROR(change(record));
    absl::StatusOr<ObjectiveRecord> stored = parts_.registry.UpdateObjective(record, etag.empty() ? record.etag : etag);
    if (absl::IsAborted(stored.status()) && etag.empty() && attempt < kModifyAttempts) continue;
    if (!stored.ok()) return stored.status();
    TRIMTAB_RETURN_IF_ERROR(parts_.publisher.Publish(stored->name));
    TRIMTAB_ASSIGN_OR_RETURN(*response, LoadObjective(parts_.registry, *stored));
    return absl::OkStatus();
  }
}

absl::Status ObjectiveServiceImpl::Update(const v1::UpdateObjectiveRequest& request, v1::Objective* response) {
  TRIMTAB_ASSIGN_OR_RETURN(const UpdateCall call, ParseUpdateObjectiveRequest(request));
  return Modify(call.id, call.etag, response, [&call](ObjectiveRecord& record) {
    if (call.display_name) record.display_name = *call.display_name;
    if (call.description) record.description = *call.description;
    if (call.default_strength) record.default_strength = *call.default_strength;
    if (call.max_strength) record.max_strength = *call.max_strength;
    return CheckStrengths(record.default_strength, record.max_strength);
  });
}

absl::Status ObjectiveServiceImpl::Delete(const v1::DeleteObjectiveRequest& request) {
  TRIMTAB_ASSIGN_OR_RETURN(const DeleteObjectiveCall call, ParseDeleteObjectiveRequest(request));
  TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveRecord record, parts_.registry.GetObjective(call.id.name()));
  TRIMTAB_RETURN_IF_ERROR(parts_.registry.DeleteObjective(record.name, call.etag));
  // The registry has marked the objective's jobs as cancelled; this wakes their worker. They may have ended meanwhile.
  const absl::StatusOr<std::vector<JobRecord>> unfinished = parts_.registry.UnfinishedJobs();
  for (const JobRecord& job : unfinished.ok() ? *unfinished : std::vector<JobRecord>()) {
    if (job.cancel_requested && (job.target == record.name || job.target.starts_with(record.name + "/"))) {
      parts_.jobs.Cancel(job.name, "the objective was deleted").IgnoreError();
    }
  }
  return parts_.publisher.Publish(record.name);
}

absl::Status ObjectiveServiceImpl::Promote(const v1::PromoteRevisionRequest& request, v1::Objective* response) {
  TRIMTAB_ASSIGN_OR_RETURN(const PromoteCall call, ParsePromoteRevisionRequest(request));
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<ServedModel> model, parts_.models.Find(call.id.objective.model));
  return Modify(call.id.objective, call.etag, response, [&](ObjectiveRecord& record) -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const RevisionRecord revision,
                             FindRevision(parts_.registry, record.name, call.id.revision));
    if (revision.model_fingerprint != model->fingerprint()) {
      return ReasonError(absl::StatusCode::kFailedPrecondition, kFingerprintMismatch,
                         absl::StrCat("revision ", revision.revision, " was fitted on other weights than this model's"),
                         {{"objective", record.name}, {"revision", absl::StrCat(revision.revision)}});
    }
    record.active_revision = revision.revision;
    if (record.state != ObjectiveRecord::State::kDisabled) record.state = ObjectiveRecord::State::kActive;
    return absl::OkStatus();
  });
}

absl::Status ObjectiveServiceImpl::Switch(const std::string& name, const std::string& etag,
                                          ObjectiveRecord::State state, v1::Objective* response) {
  TRIMTAB_ASSIGN_OR_RETURN(const SwitchCall call, ParseSwitchRequest(name, etag));
  return Modify(call.id, call.etag, response, [state](ObjectiveRecord& record) -> absl::Status {
    if (record.state != ObjectiveRecord::State::kActive && record.state != ObjectiveRecord::State::kDisabled) {
      return ReasonError(absl::StatusCode::kFailedPrecondition, kObjectiveNotReady,
                         absl::StrCat("objective \"", record.name, "\" has never been in service"),
                         {{"objective", record.name}});
    }
    record.state = state;
    return absl::OkStatus();
  });
}

absl::Status ObjectiveServiceImpl::Attributions(const v1::GetAttributionsRequest& request,
                                                v1::GetAttributionsResponse* response) {
  TRIMTAB_ASSIGN_OR_RETURN(const AttributionsCall call, ParseGetAttributionsRequest(request, parts_.page_tokens));
  TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveRecord record, parts_.registry.GetObjective(call.objective.name()));
  // A cursor is "revision/pair": later pages stay on the revision of the first.
  int64_t revision = call.revision.value_or(record.active_revision), after = -1;
  if (!call.page.after.empty()) {
    const std::pair<std::string, std::string> cursor = absl::StrSplit(call.page.after, absl::MaxSplits('/', 1));
    if (!absl::SimpleAtoi(cursor.first, &revision) || !absl::SimpleAtoi(cursor.second, &after)) {
      return FieldError({{"page_token", "is not a token of this list"}});
    }
  }
  if (revision == 0) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, kObjectiveNotReady,
                       absl::StrCat("objective \"", record.name, "\" has no revision yet"),
                       {{"objective", record.name}});
  }
  TRIMTAB_RETURN_IF_ERROR(FindRevision(parts_.registry, record.name, revision).status());
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<AttributionRecord> attributions,
                           parts_.registry.ListAttributions(record.name, revision, after, call.page.size + 1));
  for (const AttributionRecord& attribution : attributions) {
    if (response->attributions_size() == call.page.size) {
      response->set_next_page_token(parts_.page_tokens.Encode(call.scope, absl::StrCat(revision, "/", after)));
      break;
    }
    response->add_attributions()->ParseFromString(attribution.attribution);
    after = attribution.pair_index;
  }
  response->set_revision(RevisionId{.objective = call.objective, .revision = revision}.name());
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::UpdateObjective(grpc::CallbackServerContext* context,
                                                                const v1::UpdateObjectiveRequest* request,
                                                                v1::Objective* response) {
  return RunUnary(parts_.executor, context, [=, this] { return Update(*request, response); });
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::DeleteObjective(grpc::CallbackServerContext* context,
                                                                const v1::DeleteObjectiveRequest* request,
                                                                google::protobuf::Empty*) {
  return RunUnary(parts_.executor, context, [=, this] { return Delete(*request); });
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::PromoteRevision(grpc::CallbackServerContext* context,
                                                                const v1::PromoteRevisionRequest* request,
                                                                v1::Objective* response) {
  return RunUnary(parts_.executor, context, [=, this] { return Promote(*request, response); });
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::DisableObjective(grpc::CallbackServerContext* context,
                                                                 const v1::DisableObjectiveRequest* request,
                                                                 v1::Objective* response) {
  return RunUnary(parts_.executor, context, [=, this] {
    return Switch(request->name(), request->etag(), ObjectiveRecord::State::kDisabled, response);
  });
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::EnableObjective(grpc::CallbackServerContext* context,
                                                                const v1::EnableObjectiveRequest* request,
                                                                v1::Objective* response) {
  return RunUnary(parts_.executor, context, [=, this] {
    return Switch(request->name(), request->etag(), ObjectiveRecord::State::kActive, response);
  });
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::GetAttributions(grpc::CallbackServerContext* context,
                                                                const v1::GetAttributionsRequest* request,
                                                                v1::GetAttributionsResponse* response) {
  return RunUnary(parts_.executor, context, [=, this] { return Attributions(*request, response); });
}

}  // namespace trimtab
