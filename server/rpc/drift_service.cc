#include "server/rpc/drift_service.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/resource_id.h"
#include "server/rpc/to_proto.h"
#include "server/rpc/unary.h"
#include "server/rpc/validate.h"

namespace trimtab {

absl::StatusOr<JobRecord> MakeDriftJob(const v1::EvaluateDriftRequest& request, const v1::Model& model,
                                       const SteeringPlan& plan, absl::Time now) {
  v1::EvaluateDriftRequest stored = request;
  stored.clear_request_id();
  JobRecord job;
  job.request_hash = Sha256Hex(stored.SerializeAsString());
  const auto& suites = model.drift_suites();
  if (stored.suite().empty() && !suites.empty()) stored.set_suite(suites[0]);
  if (std::find(suites.begin(), suites.end(), stored.suite()) == suites.end()) {
    return NotFoundError(kResourceNotFound, "suite", stored.suite());
  }
  for (int i = 0; i < stored.steering_size(); ++i) {
    const PlannedSteering& entry = plan.entries()[i];
    stored.mutable_steering(i)->set_objective(absl::StrCat(entry.objective, "/revisions/", entry.revision));
    stored.mutable_steering(i)->set_strength(entry.strength);
    stored.mutable_steering(i)->set_apply_to(static_cast<v1::ApplyTo>(entry.apply_to));
  }
  const std::string report = absl::StrCat(model.name(), "/driftReports/", NewResourceId("report", now));
  v1::EvaluateDriftMetadata metadata;
  metadata.set_drift_report(report);
  metadata.set_phase(v1::EvaluateDriftMetadata::PHASE_QUEUED);
  *metadata.mutable_create_time() = ToProto(now);
  *metadata.mutable_update_time() = ToProto(now);
  job.name = OperationName(NewResourceId("drift", now));
  job.kind = std::string(kDriftJob);
  job.target = report;
  job.request = stored.SerializeAsString();
  job.request_id = request.request_id();
  job.metadata = metadata.SerializeAsString();
  job.create_time = job.update_time = now;
  return job;
}

absl::Status DriftServiceImpl::Evaluate(const v1::EvaluateDriftRequest& request,
                                        google::longrunning::Operation* response) {
  TRIMTAB_ASSIGN_OR_RETURN(const DriftCall call, ParseEvaluateDriftRequest(request));
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<ServedModel> model, parts_.models.Find(call.model));
  TRIMTAB_ASSIGN_OR_RETURN(const SteeringPlan plan, ResolvePlan(parts_.vectors, model->fingerprint(), call.steering));
  TRIMTAB_ASSIGN_OR_RETURN(const JobRecord job, MakeDriftJob(request, model->Describe(), plan, parts_.clock.Now()));
  TRIMTAB_RETURN_IF_ERROR(parts_.jobs.Reserve());
  const absl::StatusOr<JobRecord> stored = parts_.registry.CreateJob(job);
  if (!stored.ok() || stored->name != job.name) {
    parts_.jobs.Unreserve();
    if (!stored.ok()) return stored.status();
  } else {
    parts_.jobs.Enqueue(*stored);
  }
  *response = ToProto(*stored);
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* DriftServiceImpl::EvaluateDrift(grpc::CallbackServerContext* context,
                                                          const v1::EvaluateDriftRequest* request,
                                                          google::longrunning::Operation* response) {
  return RunUnary(parts_.executor, context, [=, this] { return Evaluate(*request, response); });
}

grpc::ServerUnaryReactor* DriftServiceImpl::GetDriftReport(grpc::CallbackServerContext* context,
                                                           const v1::GetDriftReportRequest* request,
                                                           v1::DriftReport* response) {
  return RunUnary(parts_.executor, context, [=, this]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const DriftReportId id, ParseDriftReportRequest(request->name()));
    TRIMTAB_ASSIGN_OR_RETURN(const DriftRecord record, parts_.registry.GetDriftReport(id.name()));
    response->ParseFromString(record.report);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* DriftServiceImpl::ListDriftReports(grpc::CallbackServerContext* context,
                                                             const v1::ListDriftReportsRequest* request,
                                                             v1::ListDriftReportsResponse* response) {
  return RunUnary(parts_.executor, context, [=, this]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const ListCall call, ParseListDriftReportsRequest(*request, parts_.page_tokens));
    TRIMTAB_ASSIGN_OR_RETURN(
        const std::vector<DriftRecord> records,
        parts_.registry.ListDriftReports(call.parent, {.after = call.page.after, .limit = call.page.size + 1}));
    // A model that is not loaded keeps its reports.
    if (records.empty()) TRIMTAB_RETURN_IF_ERROR(parts_.models.Describe(*ParseModelName(call.parent)).status());
    std::string last;
    for (const DriftRecord& record : records) {
      if (response->drift_reports_size() == call.page.size) {
        response->set_next_page_token(parts_.page_tokens.Encode(call.scope, last));
        break;
      }
      response->add_drift_reports()->ParseFromString(record.report);
      last = record.name;
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* DriftServiceImpl::DeleteDriftReport(grpc::CallbackServerContext* context,
                                                              const v1::DeleteDriftReportRequest* request,
                                                              google::protobuf::Empty*) {
  return RunUnary(parts_.executor, context, [=, this]() -> absl::Status {
    TRIMTAB_ASSIGN_OR_RETURN(const DriftReportId id, ParseDriftReportRequest(request->name()));
    return parts_.registry.DeleteDriftReport(id.name());
  });
}

}  // namespace trimtab
