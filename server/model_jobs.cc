#include "server/model_jobs.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/empty.pb.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/resource_name.h"
#include "server/base/status_macros.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/to_proto.h"
#include "server/rpc/validate.h"

namespace trimtab {
namespace {

// Between two looks whether the server shuts down.
constexpr absl::Duration kLook = absl::Milliseconds(100);

// JobPhase as the API has it.
v1::LoadModelMetadata::Phase LoadPhase(JobPhase phase) {
  if (phase == JobPhase::kReading) return v1::LoadModelMetadata::PHASE_READING;
  return phase == JobPhase::kStarting ? v1::LoadModelMetadata::PHASE_STARTING : v1::LoadModelMetadata::PHASE_QUEUED;
}
v1::UnloadModelMetadata::Phase UnloadPhase(JobPhase phase) {
  if (phase == JobPhase::kDraining) return v1::UnloadModelMetadata::PHASE_DRAINING;
  return phase == JobPhase::kFreeing ? v1::UnloadModelMetadata::PHASE_FREEING : v1::UnloadModelMetadata::PHASE_QUEUED;
}

template <typename Metadata, typename Phase>
std::string MetadataOf(const JobRecord& job, const JobProgressSnapshot& snapshot, Phase phase) {
  Metadata metadata;
  metadata.set_model(job.target);
  metadata.set_phase(phase);
  metadata.set_completed_percent(static_cast<float>(100 * snapshot.progress.fraction));
  *metadata.mutable_create_time() = ToProto(snapshot.create_time);
  *metadata.mutable_update_time() = ToProto(snapshot.update_time);
  return metadata.SerializeAsString();
}

JobRecord Ended(const JobRecord& job, const google::protobuf::Message& result, absl::Time now) {
  google::protobuf::Any any;
  any.PackFrom(result);
  JobRecord done = job;
  done.state = JobRecord::State::kSucceeded;
  done.end_time = now;
  done.metadata.clear();  // the last progress stands
  done.result = any.SerializeAsString();
  return done;
}

JobRecord Failed(const JobRecord& job, const absl::Status& error, absl::Time now) {
  JobRecord failed = job;
  failed.state = absl::IsCancelled(error) ? JobRecord::State::kCancelled : JobRecord::State::kFailed;
  failed.error = ToRpcStatus(error).SerializeAsString();
  failed.end_time = now;
  return failed;
}

absl::StatusOr<std::optional<ModelRecord>> FindRecord(Registry& registry, const std::string& name) {
  TRIMTAB_ASSIGN_OR_RETURN(std::vector<ModelRecord> records, registry.ListModels());
  for (ModelRecord& record : records) {
    if (record.name == name) return std::optional<ModelRecord>(std::move(record));
  }
  return std::optional<ModelRecord>();
}

}  // namespace

void ModelJobs::Register() {
  parts_.jobs.Register(std::string(kLoadJob),
                       {.run = [this](const JobRecord& job, JobContext& context) { return Load(job, context); },
                        .fail = [this](const JobRecord& job, const absl::Status& error) { return EndLoad(job, error); },
                        .metadata =
                            [](const JobRecord& job, const JobProgressSnapshot& snapshot) {
                              return MetadataOf<v1::LoadModelMetadata>(job, snapshot,
                                                                       LoadPhase(snapshot.progress.phase));
                            },
                        .lane = JobLane::kOperator});
  parts_.jobs.Register(
      std::string(kUnloadJob),
      {.run = [this](const JobRecord& job, JobContext& context) { return Unload(job, context); },
       .fail = [this](const JobRecord& job, const absl::Status& error) { return EndUnload(job, error); },
       .metadata =
           [](const JobRecord& job, const JobProgressSnapshot& snapshot) {
             return MetadataOf<v1::UnloadModelMetadata>(job, snapshot, UnloadPhase(snapshot.progress.phase));
           },
       .lane = JobLane::kOperator});
}

absl::Status ModelJobs::Load(const JobRecord& job, JobContext& context) const {
  v1::LoadModelRequest request;
  if (!request.ParseFromString(job.request)) return absl::DataLossError("the stored request is damaged");
  const std::string& id = request.model_id();
  // A job that an earlier server began is here without its service's checks.
  TRIMTAB_RETURN_IF_ERROR(parts_.host.CheckFree(id));
  TRIMTAB_ASSIGN_OR_RETURN(const ModelPlan plan, parts_.host.PlanRequested(request));
  TRIMTAB_ASSIGN_OR_RETURN(const v1::Model model, parts_.host.Load(plan, /*admit=*/true, [&context](JobPhase phase) {
    context.Report({.phase = phase, .fraction = phase == JobPhase::kReading ? 0.05 : 0.8});
    return context.Checkpoint();
  }));
  // It serves. If that cannot be made durable, or is not wanted any more, it must not stay.
  absl::Status kept = context.Checkpoint();
  if (kept.ok()) {
    context.Report({.phase = JobPhase::kStarting, .fraction = 1});
    kept = parts_.registry.CommitModelLoad({.name = job.target,
                                            .path = plan.relative_path,
                                            .precision = plan.precision,
                                            .kv_cache_mib = plan.kv_cache_mib,
                                            .fingerprint = model.fingerprint()},
                                           Ended(job, model, parts_.clock.Now()));
  }
  if (kept.ok()) return absl::OkStatus();
  parts_.host.BeginUnload(id);
  parts_.host.Drain(id, parts_.clock.Now());
  TakeDown(id, context).IgnoreError();
  AnnounceLoad(job);  // it may be tried again
  return kept;
}

void ModelJobs::AnnounceLoad(const JobRecord& job) const {
  v1::Model model;
  model.set_name(job.target);
  model.set_state(v1::Model::STATE_LOADING);
  parts_.host.BeginLoad(model);
}

absl::Status ModelJobs::EndLoad(const JobRecord& job, const absl::Status& error) const {
  LogWarning(
      "a model was not loaded",
      {{"model", job.target}, {"reason", GetErrorDetail(error).reason}, {"error", std::string(error.message())}});
  TRIMTAB_RETURN_IF_ERROR(parts_.registry.UpdateJob(Failed(job, error, parts_.clock.Now())));
  const std::string id = ParseModelName(job.target).value_or("");
  const absl::StatusOr<v1::Model> listed = parts_.host.directory().Describe(id);
  // Another model may have the name now.
  if (listed.ok() && listed->state() != v1::Model::STATE_LOADING) return absl::OkStatus();
  // One that was remembered before, and failed then, is still remembered.
  TRIMTAB_ASSIGN_OR_RETURN(const std::optional<ModelRecord> record, FindRecord(parts_.registry, job.target));
  if (record) {
    parts_.host.Fail(id, record->path, error);
  } else {
    parts_.host.Forget(id);
  }
  return absl::OkStatus();
}

absl::Status ModelJobs::CancelJobsOf(const std::string& model) const {
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<JobRecord> unfinished, parts_.registry.UnfinishedJobs());
  for (const JobRecord& job : unfinished) {
    if (!job.target.starts_with(model + "/")) continue;
    const absl::Status status = parts_.jobs.Cancel(job.name, absl::StrCat(model, " is being unloaded"));
    // It may have ended meanwhile.
    if (absl::IsUnavailable(status)) return status;
  }
  return absl::OkStatus();
}

absl::Status ModelJobs::TakeDown(const std::string& id, JobContext& context) const {
  const std::shared_ptr<absl::Notification> gone = parts_.host.Release(id);
  // Calls end with the engine's requests, jobs at their next checkpoint.
  const absl::Time deadline = parts_.clock.Now() + parts_.release_timeout;
  while (gone != nullptr && !gone->WaitForNotificationWithTimeout(kLook)) {
    const absl::Status status = context.Checkpoint();
    if (absl::IsUnavailable(status)) return status;
    if (parts_.clock.Now() < deadline) continue;
    LogWarning("a call still holds a model that was unloaded", {{"model", id}});
    break;
  }
  parts_.publisher.Withdraw(ModelName(id));
  return absl::OkStatus();
}

absl::Status ModelJobs::Unload(const JobRecord& job, JobContext& context) const {
  v1::UnloadModelRequest request;
  if (!request.ParseFromString(job.request)) return absl::DataLossError("the stored request is damaged");
  TRIMTAB_ASSIGN_OR_RETURN(const UnloadModelCall call, ParseUnloadModelRequest(request));
  TRIMTAB_RETURN_IF_ERROR(context.Checkpoint());
  parts_.host.BeginUnload(call.model);  // again, when an earlier server made the job
  context.Report({.phase = JobPhase::kDraining, .fraction = 0.1});
  TRIMTAB_RETURN_IF_ERROR(CancelJobsOf(job.target));
  parts_.host.Drain(call.model, parts_.clock.Now() + call.drain_timeout.value_or(parts_.drain_timeout));
  context.Report({.phase = JobPhase::kFreeing, .fraction = 0.8});
  TRIMTAB_RETURN_IF_ERROR(TakeDown(call.model, context));
  context.Report({.phase = JobPhase::kFreeing, .fraction = 1});
  TRIMTAB_RETURN_IF_ERROR(
      parts_.registry.CommitModelUnload(job.target, Ended(job, google::protobuf::Empty(), parts_.clock.Now())));
  parts_.host.Forget(call.model);
  return absl::OkStatus();
}

absl::Status ModelJobs::EndUnload(const JobRecord& job, const absl::Status& error) const {
  TRIMTAB_RETURN_IF_ERROR(parts_.registry.UpdateJob(Failed(job, error, parts_.clock.Now())));
  const std::string id = ParseModelName(job.target).value_or("");
  // Cancelled before it began, else it is out of memory but could not be forgotten.
  if (!parts_.host.Resume(id)) parts_.host.Fail(id, "", error);
  return absl::OkStatus();
}

absl::Status ModelJobs::RestoreOne(const ModelRecord& record) const {
  TRIMTAB_ASSIGN_OR_RETURN(const int64_t starts, parts_.registry.BeginModelStart(record.name));
  if (starts > kMaxUnfinishedStarts) {
    return ReasonError(
        absl::StatusCode::kInternal, kInternal,
        absl::StrCat("the server died ", starts - 1, " times while it loaded this model: it is not tried again"));
  }
  absl::StatusOr<ModelPlan> plan = parts_.host.PlanRemembered(record);
  absl::Status status = plan.status();
  if (plan.ok()) {
    try {
      status = parts_.host.Load(*plan, /*admit=*/true, [](JobPhase) { return absl::OkStatus(); }).status();
    } catch (const std::exception& exception) {
      // Not even memory that runs out is a reason not to serve the other models.
      status = ReasonError(absl::StatusCode::kResourceExhausted, kDeviceOutOfMemory,
                           absl::StrCat("the model could not be loaded: ", exception.what()));
    }
  }
  TRIMTAB_RETURN_IF_ERROR(parts_.registry.EndModelStart(record.name));
  return status;
}

absl::Status ModelJobs::Restore() {
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<ModelRecord> records, parts_.registry.ListModels());
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<JobRecord> unfinished, parts_.registry.UnfinishedJobs());
  for (const ModelRecord& record : records) {
    const std::string id = ParseModelName(record.name).value_or("");
    // One of --model has the name: the operator's word of today.
    if (parts_.host.directory().Describe(id).ok()) continue;
    const bool leaving = std::any_of(unfinished.begin(), unfinished.end(), [&](const JobRecord& job) {
      return job.kind == kUnloadJob && job.target == record.name && !job.cancel_requested;
    });
    if (leaving) {
      parts_.host.BeginUnload(id);
      continue;
    }
    const absl::Status status = RestoreOne(record);
    if (status.ok()) continue;
    LogError("a model that was loaded before cannot be loaded",
             {{"model", id}, {"path", record.path}, {"error", std::string(status.message())}});
    parts_.host.Fail(id, record.path, status);
  }
  // The names that resumed loads will have.
  for (const JobRecord& job : unfinished) {
    if (job.kind == kLoadJob && parts_.host.CheckFree(ParseModelName(job.target).value_or("")).ok()) AnnounceLoad(job);
  }
  return absl::OkStatus();
}

}  // namespace trimtab
