#include "server/rpc/objective_service.h"

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/error.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/resource_id.h"
#include "server/rpc/to_proto.h"
#include "server/rpc/unary.h"

namespace trimtab {
namespace {

constexpr int kModifyAttempts = 8;
constexpr size_t kMaxTurnViolations = 20;

// A default that every request would be refused for is a mistake.
absl::Status CheckStrengths(std::optional<float> default_strength, std::optional<float> max_strength) {
  if (!default_strength || !max_strength || std::abs(*default_strength) <= *max_strength) return absl::OkStatus();
  return FieldError({{"objective.default_strength", absl::StrCat("must be within max_strength, ", *max_strength)}});
}

// Without a chat template there is nothing to join turns with.
absl::Status CheckTurns(const RegisterCall& call, const ServedModel& model) {
  if (model.Describe().has_chat_template()) return absl::OkStatus();
  std::vector<FieldViolation> violations;
  for (const auto& [field, pairs] : {std::pair("objective.pairs", &call.pairs.pairs),
                                     std::pair("objective.held_out_pairs", &call.pairs.held_out)}) {
    for (size_t i = 0; i < pairs->size(); ++i) {
      if ((*pairs)[i].prompt.size() == 1 || violations.size() == kMaxTurnViolations) continue;
      violations.push_back({absl::StrCat(field, "[", i, "].prompt"),
                            "must be one user's turn, which is read as it is: this model has no chat template"});
    }
  }
  return violations.empty() ? absl::OkStatus() : FieldError(std::move(violations));
}

// The registration without what identifies the call: two calls with the same hash ask for the same thing.
std::string RequestHash(v1::RegisterObjectiveRequest request) {
  request.clear_request_id();
  return Sha256Hex(request.SerializeAsString());
}

ObjectiveRecord MakeObjectiveRecord(const RegisterCall& call, const v1::RegisterObjectiveRequest& request,
                                    const ServedModel& model, absl::Time now) {
  v1::Objective pairs;
  *pairs.mutable_pairs() = request.objective().pairs();
  *pairs.mutable_held_out_pairs() = request.objective().held_out_pairs();
  ObjectiveRecord record;
  record.name = call.id.name();
  record.uid = NewResourceId("uid", now);
  record.request_id = call.request_id;
  record.request_hash = RequestHash(request);
  record.display_name = call.display_name;
  record.description = call.description;
  record.method = call.method;
  if (request.objective().has_method_config()) {
    record.method_config = request.objective().method_config().SerializeAsString();
  }
  record.pairs = pairs.SerializeAsString();
  record.pairs_hash = PairsHash(call.pairs.pairs);
  record.pair_count = static_cast<int64_t>(call.pairs.pairs.size());
  record.held_out_count = static_cast<int64_t>(call.pairs.held_out.size());
  record.default_strength = call.default_strength;
  record.max_strength = call.max_strength;
  record.model_fingerprint = model.fingerprint();
  record.operation = OperationName(NewResourceId("fit", now));
  record.create_time = record.update_time = now;
  return record;
}

JobRecord MakeFitJob(const ObjectiveRecord& objective, const v1::RegisterObjectiveRequest& request, absl::Time now) {
  // The pairs are in the objective's record.
  v1::RegisterObjectiveRequest stored = request;
  stored.mutable_objective()->clear_pairs();
  stored.mutable_objective()->clear_held_out_pairs();
  v1::RegisterObjectiveMetadata metadata;
  metadata.set_objective(objective.name);
  metadata.set_phase(v1::RegisterObjectiveMetadata::PHASE_QUEUED);
  metadata.set_total_pairs(static_cast<int32_t>(objective.pair_count));
  *metadata.mutable_create_time() = ToProto(now);
  *metadata.mutable_update_time() = ToProto(now);
  JobRecord job;
  job.name = objective.operation;
  job.kind = std::string(kFitJob);
  job.target = objective.name;
  job.request = stored.SerializeAsString();
  job.request_id = objective.request_id;
  job.request_hash = objective.request_hash;
  job.metadata = metadata.SerializeAsString();
  job.create_time = job.update_time = now;
  return job;
}

}  // namespace

absl::Status ObjectiveServiceImpl::Register(const v1::RegisterObjectiveRequest& request,
                                            google::longrunning::Operation* response) {
  TRIMTAB_ASSIGN_OR_RETURN(const RegisterCall call, ParseRegisterObjectiveRequest(request));
  TRIMTAB_RETURN_IF_ERROR(CheckStrengths(call.default_strength, call.max_strength));
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<ServedModel> model, parts_.models.Find(call.id.model));
  TRIMTAB_RETURN_IF_ERROR(CheckTurns(call, *model));
  const google::protobuf::Any* config =
      request.objective().has_method_config() ? &request.objective().method_config() : nullptr;
  TRIMTAB_RETURN_IF_ERROR(parts_.methods.Create(call.method, config).status());
  const absl::Time now = parts_.clock.Now();
  const ObjectiveRecord objective = MakeObjectiveRecord(call, request, *model, now);
  if (call.validate_only) {
    if (parts_.registry.GetObjective(objective.name).ok()) {
      return ReasonError(absl::StatusCode::kAlreadyExists, kObjectiveExists,
                         absl::StrCat("objective \"", objective.name, "\" exists already"),
                         {{"objective", objective.name}});
    }
    response->set_done(true);
    response->mutable_response()->PackFrom(ToProto(objective, nullptr));
    return absl::OkStatus();
  }
  const JobRecord job = MakeFitJob(objective, request, now);
  TRIMTAB_RETURN_IF_ERROR(parts_.jobs.Reserve());
  const absl::StatusOr<Registry::Creation> creation = parts_.registry.CreateObjective(objective, job);
  if (!creation.ok() || !creation->created) {
    parts_.jobs.Unreserve();
    if (!creation.ok()) return creation.status();
    TRIMTAB_ASSIGN_OR_RETURN(const JobRecord existing, parts_.jobs.Get(creation->objective.operation));
    *response = ToProto(existing);
    return absl::OkStatus();
  }
  // Before the job may end, so that its result is published last.
  const absl::Status published = parts_.publisher.Publish(objective.name);
  parts_.jobs.Enqueue(job);
  TRIMTAB_RETURN_IF_ERROR(published);
  *response = ToProto(job);
  return absl::OkStatus();
}

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
  // The registry has marked a running fit as cancelled; this wakes its worker. It may have ended meanwhile.
  if (record.state == ObjectiveRecord::State::kCreating) parts_.jobs.Cancel(record.operation).IgnoreError();
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
    record.state = ObjectiveRecord::State::kActive;
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

grpc::ServerUnaryReactor* ObjectiveServiceImpl::RegisterObjective(grpc::CallbackServerContext* context,
                                                                  const v1::RegisterObjectiveRequest* request,
                                                                  google::longrunning::Operation* response) {
  return RunUnary(parts_.executor, context, [=, this] { return Register(*request, response); });
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

grpc::ServerUnaryReactor* ObjectiveServiceImpl::GetAttributions(grpc::CallbackServerContext* context,
                                                                const v1::GetAttributionsRequest* request,
                                                                v1::GetAttributionsResponse* response) {
  return RunUnary(parts_.executor, context, [=, this] { return Attributions(*request, response); });
}

}  // namespace trimtab
