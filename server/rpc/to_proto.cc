#include "server/rpc/to_proto.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/rpc/proto_time.h"

namespace trimtab {
namespace {

constexpr char kTypeUrlPrefix[] = "type.googleapis.com/";

v1::Site SiteOf(std::string_view name) {
  if (name == "block_output") return v1::SITE_BLOCK_OUTPUT;
  if (name == "attention_output") return v1::SITE_ATTENTION_OUTPUT;
  if (name == "mlp_output") return v1::SITE_MLP_OUTPUT;
  return v1::SITE_UNSPECIFIED;
}

// Full name of the metadata message of a kind of job.
std::string MetadataType(std::string_view kind) {
  if (kind == kFitJob || kind == kRefitJob) return v1::RegisterObjectiveMetadata::descriptor()->full_name();
  if (kind == kCurveJob) return v1::EvaluateStrengthMetadata::descriptor()->full_name();
  if (kind == kLoadJob) return v1::LoadModelMetadata::descriptor()->full_name();
  if (kind == kUnloadJob) return v1::UnloadModelMetadata::descriptor()->full_name();
  return v1::EvaluateDriftMetadata::descriptor()->full_name();
}

}  // namespace

v1::RevisionSummary ToProto(const RevisionRecord& record) {
  v1::RevisionSummary summary;
  summary.ParseFromString(record.summary);
  summary.set_revision(record.revision);
  summary.set_name(absl::StrCat(record.objective, "/revisions/", record.revision));
  summary.set_digest(record.digest);
  *summary.mutable_create_time() = ToProto(record.create_time);
  if (!record.curve.empty()) summary.mutable_curve()->ParseFromString(record.curve);
  return summary;
}

v1::Objective ToProto(const ObjectiveRecord& record, const RevisionRecord* active) {
  v1::Objective objective;
  objective.set_name(record.name);
  objective.set_display_name(record.display_name);
  objective.set_description(record.description);
  objective.set_method(record.method);
  if (!record.method_config.empty()) objective.mutable_method_config()->ParseFromString(record.method_config);
  if (record.default_strength) objective.set_default_strength(*record.default_strength);
  if (record.max_strength) objective.set_max_strength(*record.max_strength);
  objective.set_state(static_cast<v1::Objective::State>(record.state));
  if (!record.error.empty()) objective.mutable_error()->ParseFromString(record.error);
  if (active != nullptr) *objective.mutable_active() = ToProto(*active);
  *objective.mutable_create_time() = ToProto(record.create_time);
  *objective.mutable_update_time() = ToProto(record.update_time);
  objective.set_etag(record.etag);
  objective.set_model_fingerprint(active != nullptr ? active->model_fingerprint : record.model_fingerprint);
  objective.set_operation(record.state == ObjectiveRecord::State::kCreating ? record.operation : record.refit);
  return objective;
}

v1::SteeringMethod ToProto(const MethodInfo& info) {
  v1::SteeringMethod method;
  method.set_name(absl::StrCat("steeringMethods/", info.id));
  method.set_display_name(info.display_name);
  method.set_description(info.description);
  method.set_config_type(info.config_type);
  method.mutable_default_config()->set_type_url(kTypeUrlPrefix + info.config_type);
  method.mutable_default_config()->set_value(info.default_config);
  for (const std::string& site : info.sites) method.add_sites(SiteOf(site));
  return method;
}

google::longrunning::Operation ToProto(const JobRecord& record) {
  google::longrunning::Operation operation;
  operation.set_name(record.name);
  operation.mutable_metadata()->set_type_url(kTypeUrlPrefix + MetadataType(record.kind));
  operation.mutable_metadata()->set_value(record.metadata);
  switch (record.state) {
    case JobRecord::State::kQueued:
    case JobRecord::State::kRunning:
      break;
    case JobRecord::State::kSucceeded:
      operation.set_done(true);
      operation.mutable_response()->ParseFromString(record.result);
      break;
    case JobRecord::State::kFailed:
    case JobRecord::State::kCancelled:
      operation.set_done(true);
      operation.mutable_error()->ParseFromString(record.error);
      break;
  }
  return operation;
}

absl::StatusOr<RevisionRecord> FindRevision(Registry& registry, const std::string& objective, int64_t revision) {
  TRIMTAB_ASSIGN_OR_RETURN(std::vector<RevisionRecord> found, registry.ListRevisions(objective, revision - 1, 1));
  if (found.empty() || found[0].revision != revision) {
    return NotFoundError(kRevisionNotFound, "revision", absl::StrCat(objective, "/revisions/", revision));
  }
  return std::move(found[0]);
}

absl::StatusOr<v1::Objective> LoadObjective(Registry& registry, const ObjectiveRecord& record) {
  if (record.active_revision == 0) return ToProto(record, nullptr);
  TRIMTAB_ASSIGN_OR_RETURN(const RevisionRecord active, FindRevision(registry, record.name, record.active_revision));
  return ToProto(record, &active);
}

}  // namespace trimtab
