// The methods of ObjectiveService that queue long work: RegisterObjective, RefitObjective, EvaluateStrength.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"
#include "server/rpc/common_fit_options.h"
#include "server/rpc/objective_service.h"
#include "server/rpc/pairs_report.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/resource_id.h"
#include "server/rpc/to_proto.h"
#include "server/rpc/unary.h"

namespace trimtab {
namespace {

constexpr size_t kMaxTurnViolations = 20;
constexpr int64_t kUsualMaxPairTokens = 1024;
constexpr size_t kMinMeasuredPairs = 2;  // of which an interval can be told
// A curve's strengths as multiples of the recommended one.
constexpr float kCurveMultiples[] = {-2, -1, -0.5f, 0, 0.25f, 0.5f, 0.75f, 1, 1.25f, 1.5f, 2};
// Of max_strength, when no strength is recommended.
constexpr float kUnknownRecommendation = 0.25f;

// Without a chat template there is nothing to join turns with. `prefix` stands before the fields' names.
absl::Status CheckTurns(const std::string& prefix, const PairSet& set, const ServedModel& model) {
  if (model.Describe().has_chat_template()) return absl::OkStatus();
  std::vector<FieldViolation> violations;
  for (const auto& [field, pairs] : {std::pair("pairs", &set.pairs), std::pair("held_out_pairs", &set.held_out)}) {
    for (size_t i = 0; i < pairs->size(); ++i) {
      if ((*pairs)[i].prompt.size() == 1 || violations.size() == kMaxTurnViolations) continue;
      violations.push_back({absl::StrCat(prefix, field, "[", i, "].prompt"),
                            "must be one user's turn, which is read as it is: this model has no chat template"});
    }
  }
  return violations.empty() ? absl::OkStatus() : FieldError(std::move(violations));
}

// A request without what identifies the call: two calls with the same hash ask for the same thing.
template <typename Request>
std::string RequestHash(Request request) {
  request.clear_request_id();
  return Sha256Hex(request.SerializeAsString());
}

// The pairs of a request as the registry keeps them.
template <typename Message>
std::string StoredPairs(const Message& message) {
  v1::Objective pairs;
  *pairs.mutable_pairs() = message.pairs();
  *pairs.mutable_held_out_pairs() = message.held_out_pairs();
  return pairs.SerializeAsString();
}

ObjectiveRecord MakeObjectiveRecord(const RegisterCall& call, const v1::RegisterObjectiveRequest& request,
                                    const ServedModel& model, absl::Time now) {
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
  record.pairs = StoredPairs(request.objective());
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

// A fit job of `objective`. `request`: what it is to do, without pairs.
JobRecord MakeFitJob(std::string_view kind, const std::string& name, const std::string& objective, int64_t pair_count,
                     const google::protobuf::Message& request, absl::Time now) {
  v1::RegisterObjectiveMetadata metadata;
  metadata.set_objective(objective);
  metadata.set_phase(v1::RegisterObjectiveMetadata::PHASE_QUEUED);
  metadata.set_total_pairs(static_cast<int32_t>(pair_count));
  *metadata.mutable_create_time() = ToProto(now);
  *metadata.mutable_update_time() = ToProto(now);
  JobRecord job;
  job.name = name;
  job.kind = std::string(kind);
  job.target = objective;
  job.request = request.SerializeAsString();
  job.metadata = metadata.SerializeAsString();
  job.create_time = job.update_time = now;
  return job;
}

absl::Status NotReady(const ObjectiveRecord& record, const std::string& why) {
  return ReasonError(absl::StatusCode::kFailedPrecondition, kObjectiveNotReady,
                     absl::StrCat("objective \"", record.name, "\" ", why), {{"objective", record.name}});
}

// What a fit makes of a request's method: the objective's own unless the request says more.
struct MethodChoice {
  std::string method;
  std::optional<google::protobuf::Any> config;
};
absl::StatusOr<MethodChoice> ChooseMethod(const v1::RefitObjectiveRequest& request, const ObjectiveRecord& objective) {
  MethodChoice choice{.method = request.method().empty() ? objective.method : request.method()};
  if (request.has_method_config()) {
    choice.config = request.method_config();
  } else if (request.method().empty() && !objective.method_config.empty()) {
    choice.config.emplace();
    if (!choice.config->ParseFromString(objective.method_config)) {
      return absl::DataLossError("the stored configuration is damaged");
    }
  }
  return choice;
}

// The pairs that the registry keeps of `objective`.
absl::StatusOr<v1::Objective> KeptPairs(const ObjectiveRecord& objective) {
  v1::Objective pairs;
  if (!pairs.ParseFromString(objective.pairs)) return absl::DataLossError("the stored pairs are damaged");
  return pairs;
}

// The strengths of a curve, ascending, with 0.
std::vector<float> CurveStrengths(const StrengthCall& call, const v1::RevisionSummary& revision) {
  std::vector<float> strengths = call.strengths;
  if (strengths.empty()) {
    const float limit = revision.max_strength();
    const float unit =
        revision.recommended_strength() != 0 ? revision.recommended_strength() : kUnknownRecommendation * limit;
    for (float multiple : kCurveMultiples) strengths.push_back(std::clamp(multiple * unit, -limit, limit));
  }
  strengths.push_back(0);
  std::sort(strengths.begin(), strengths.end());
  strengths.erase(std::unique(strengths.begin(), strengths.end()), strengths.end());
  return strengths;
}

absl::Status CheckWithin(const v1::EvaluateStrengthRequest& request, float limit) {
  std::vector<FieldViolation> violations;
  for (int i = 0; i < request.strengths_size(); ++i) {
    if (std::abs(request.strengths(i)) <= limit) continue;
    violations.push_back(
        {absl::StrCat("strengths[", i, "]"), absl::StrCat("must be within the revision's max_strength, ", limit)});
  }
  return violations.empty() ? absl::OkStatus() : FieldError(std::move(violations));
}

// The job that measures a curve. `stored`: resolved, with the pairs unless they are to be those of the validation.
JobRecord MakeCurveJob(const v1::EvaluateStrengthRequest& request, const v1::EvaluateStrengthRequest& stored,
                       const std::string& pairs_source, absl::Time now) {
  v1::EvaluateStrengthMetadata metadata;
  metadata.set_revision(stored.name());
  metadata.set_pairs_source(pairs_source);
  *metadata.mutable_create_time() = ToProto(now);
  *metadata.mutable_update_time() = ToProto(now);
  JobRecord job;
  job.name = OperationName(NewResourceId(kCurveJob, now));
  job.kind = std::string(kCurveJob);
  job.target = stored.name();
  job.request = stored.SerializeAsString();
  job.request_id = request.request_id();
  job.request_hash = RequestHash(request);
  job.metadata = metadata.SerializeAsString();
  job.create_time = job.update_time = now;
  return job;
}

}  // namespace

absl::Status ObjectiveServiceImpl::Report(const PairSet& pairs, const ServedModel& model, const std::string& method,
                                          const google::protobuf::Any* config, const std::string& objective,
                                          google::longrunning::Operation* response) const {
  const methods::v1::FitOptions options = CommonFitOptions(parts_.methods.Find(method), config);
  v1::RegisterObjectiveMetadata metadata;
  metadata.set_objective(objective);
  metadata.set_total_pairs(static_cast<int32_t>(pairs.pairs.size()));
  v1::PairsReport& report = *metadata.mutable_pairs_report();
  report = ReportPairs(pairs, model, options.has_max_pair_tokens() ? options.max_pair_tokens() : kUsualMaxPairTokens);
  if (parts_.preview) {
    const absl::StatusOr<FitPreview> preview = parts_.preview(model.id(), method, config, pairs);
    const bool pairs_alone = GetErrorDetail(preview.status()).reason == kPairsDegenerate;  // a finding says so
    if (preview.ok()) {
      TRIMTAB_RETURN_IF_ERROR(EstimateFitTime(parts_.registry, model.Describe(), preview->rows, report));
    } else if (!absl::IsUnimplemented(preview.status()) && !pairs_alone) {
      return preview.status();
    }
  }
  response->set_done(true);
  response->mutable_metadata()->PackFrom(metadata);
  return absl::OkStatus();
}

absl::Status ObjectiveServiceImpl::Register(const v1::RegisterObjectiveRequest& request,
                                            google::longrunning::Operation* response) {
  TRIMTAB_ASSIGN_OR_RETURN(const RegisterCall call, ParseRegisterObjectiveRequest(request));
  TRIMTAB_RETURN_IF_ERROR(CheckStrengths(call.default_strength, call.max_strength));
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<ServedModel> model, parts_.models.Find(call.id.model));
  TRIMTAB_RETURN_IF_ERROR(CheckTurns("objective.", call.pairs, *model));
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
    response->mutable_response()->PackFrom(ToProto(objective, nullptr));
    return Report(call.pairs, *model, call.method, config, objective.name, response);
  }
  v1::RegisterObjectiveRequest stored = request;  // the pairs are in the objective's record
  stored.mutable_objective()->clear_pairs();
  stored.mutable_objective()->clear_held_out_pairs();
  JobRecord job = MakeFitJob(kFitJob, objective.operation, objective.name, objective.pair_count, stored, now);
  job.request_id = objective.request_id;
  job.request_hash = objective.request_hash;
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

absl::Status ObjectiveServiceImpl::Refit(const v1::RefitObjectiveRequest& request,
                                         google::longrunning::Operation* response) {
  TRIMTAB_ASSIGN_OR_RETURN(const RefitCall call, ParseRefitObjectiveRequest(request));
  TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveRecord record, parts_.registry.GetObjective(call.id.name()));
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<ServedModel> model, parts_.models.Find(call.id.model));
  TRIMTAB_RETURN_IF_ERROR(CheckTurns("", call.pairs, *model));
  if (call.pairs.pairs.empty() && record.pair_count == 0) {
    return FieldError({{"pairs", "must be given: the objective was imported and has none"}});
  }
  TRIMTAB_ASSIGN_OR_RETURN(const MethodChoice choice, ChooseMethod(request, record));
  const google::protobuf::Any* const config = choice.config ? &*choice.config : nullptr;
  TRIMTAB_RETURN_IF_ERROR(parts_.methods.Create(choice.method, config).status());
  if (call.validate_only) {
    if (record.state == ObjectiveRecord::State::kCreating || !record.refit.empty()) {
      return NotReady(record, "is being fitted");
    }
    if (!call.etag.empty() && call.etag != record.etag) {
      return ReasonError(absl::StatusCode::kAborted, kEtagMismatch,
                         absl::StrCat("objective \"", record.name, "\" has changed meanwhile: read it again"),
                         {{"objective", record.name}, {"etag", record.etag}});
    }
    PairSet pairs = call.pairs;
    if (pairs.pairs.empty()) {
      TRIMTAB_ASSIGN_OR_RETURN(const v1::Objective kept, KeptPairs(record));
      FieldChecker checker;
      pairs = ParsePairs(checker, "objective", kept);
    }
    TRIMTAB_ASSIGN_OR_RETURN(const v1::Objective objective, LoadObjective(parts_.registry, record));
    response->mutable_response()->PackFrom(objective);
    return Report(pairs, *model, choice.method, config, record.name, response);
  }
  v1::RefitObjectiveRequest stored = request;
  stored.clear_pairs();
  stored.clear_held_out_pairs();
  stored.set_method(choice.method);
  if (config != nullptr) *stored.mutable_method_config() = *config;
  const absl::Time now = parts_.clock.Now();
  const int64_t pair_count =
      call.pairs.pairs.empty() ? record.pair_count : static_cast<int64_t>(call.pairs.pairs.size());
  JobRecord job =
      MakeFitJob(kRefitJob, OperationName(NewResourceId(kRefitJob, now)), record.name, pair_count, stored, now);
  job.request_id = call.request_id;
  job.request_hash = RequestHash(request);
  TRIMTAB_RETURN_IF_ERROR(parts_.jobs.Reserve());
  const absl::StatusOr<JobRecord> queued = parts_.registry.BeginRefit(
      record.name, job, call.pairs.pairs.empty() ? std::string() : StoredPairs(request), call.etag);
  if (!queued.ok() || queued->name != job.name) {
    parts_.jobs.Unreserve();
    if (!queued.ok()) return queued.status();
    TRIMTAB_ASSIGN_OR_RETURN(const JobRecord live, parts_.jobs.Get(queued->name));
    *response = ToProto(live);
    return absl::OkStatus();
  }
  parts_.jobs.Enqueue(*queued);
  *response = ToProto(*queued);
  return absl::OkStatus();
}

absl::Status ObjectiveServiceImpl::Evaluate(const v1::EvaluateStrengthRequest& request,
                                            google::longrunning::Operation* response) {
  TRIMTAB_ASSIGN_OR_RETURN(const StrengthCall call, ParseEvaluateStrengthRequest(request));
  TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveRecord record, parts_.registry.GetObjective(call.objective.name()));
  const int64_t number = call.revision.value_or(record.active_revision);
  if (number == 0) return NotReady(record, "has no revision yet");
  TRIMTAB_ASSIGN_OR_RETURN(const RevisionRecord revision, FindRevision(parts_.registry, record.name, number));
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<ServedModel> model, parts_.models.Find(call.objective.model));
  if (revision.model_fingerprint != model->fingerprint()) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, kFingerprintMismatch,
                       absl::StrCat("revision ", number, " was fitted on other weights than this model's"),
                       {{"objective", record.name}, {"revision", absl::StrCat(number)}});
  }
  const v1::RevisionSummary summary = ToProto(revision);
  TRIMTAB_RETURN_IF_ERROR(CheckWithin(request, summary.max_strength()));
  TRIMTAB_RETURN_IF_ERROR(CheckTurns("", {.pairs = call.pairs}, *model));

  v1::EvaluateStrengthRequest stored;
  stored.set_name(RevisionId{.objective = call.objective, .revision = number}.name());
  const std::vector<float> strengths = CurveStrengths(call, summary);
  stored.mutable_strengths()->Assign(strengths.begin(), strengths.end());
  stored.set_max_pairs(static_cast<int32_t>(call.max_pairs));
  std::string source = "request";
  google::protobuf::RepeatedPtrField<v1::PreferencePair> pairs = request.pairs();
  if (pairs.empty()) {
    if (record.pair_count == 0 || revision.pairs_hash != record.pairs_hash) {
      return FieldError({{"pairs", "must be given: the revision was not fitted on the objective's present pairs"}});
    }
    TRIMTAB_ASSIGN_OR_RETURN(const v1::Objective kept, KeptPairs(record));
    source = "validation";
    if (static_cast<size_t>(kept.held_out_pairs_size()) >= kMinMeasuredPairs) {
      source = "held_out";
      pairs = kept.held_out_pairs();
    }
  }
  const int count = std::min(pairs.size(), static_cast<int>(call.max_pairs));
  stored.mutable_pairs()->Assign(pairs.begin(), pairs.begin() + count);

  const JobRecord job = MakeCurveJob(request, stored, source, parts_.clock.Now());
  TRIMTAB_RETURN_IF_ERROR(parts_.jobs.Reserve());
  const absl::StatusOr<JobRecord> queued = parts_.registry.CreateJob(job);
  if (!queued.ok() || queued->name != job.name) {
    parts_.jobs.Unreserve();
    if (!queued.ok()) return queued.status();
    TRIMTAB_ASSIGN_OR_RETURN(const JobRecord live, parts_.jobs.Get(queued->name));
    *response = ToProto(live);
    return absl::OkStatus();
  }
  parts_.jobs.Enqueue(*queued);
  *response = ToProto(*queued);
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::RegisterObjective(grpc::CallbackServerContext* context,
                                                                  const v1::RegisterObjectiveRequest* request,
                                                                  google::longrunning::Operation* response) {
  return RunUnary(parts_.executor, context, [=, this] { return Register(*request, response); });
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::RefitObjective(grpc::CallbackServerContext* context,
                                                               const v1::RefitObjectiveRequest* request,
                                                               google::longrunning::Operation* response) {
  return RunUnary(parts_.executor, context, [=, this] { return Refit(*request, response); });
}

grpc::ServerUnaryReactor* ObjectiveServiceImpl::EvaluateStrength(grpc::CallbackServerContext* context,
                                                                 const v1::EvaluateStrengthRequest* request,
                                                                 google::longrunning::Operation* response) {
  return RunUnary(parts_.executor, context, [=, this] { return Evaluate(*request, response); });
}

}  // namespace trimtab
