#include "server/drift_runner.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/part_of_job.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/validate.h"
#include "steering/drift/drift_evaluation.h"

namespace trimtab {
namespace {

void AddSubjects(const std::map<std::string, ChoiceStats>& subjects, v1::DriftReport& report) {
  for (const auto& [name, stats] : subjects) {
    v1::SubjectDrift& subject = *report.add_subjects();
    subject.set_subject(name);
    subject.set_items(static_cast<int32_t>(stats.items));
    subject.set_baseline_accuracy(stats.baseline_accuracy);
    subject.set_accuracy(stats.accuracy);
    subject.set_mean_kl_choice(stats.mean_kl_choice);
  }
}

v1::DriftReport ReportOf(const DriftResult& result) {
  v1::DriftReport report;
  const ChoiceStats& choices = result.choices;
  report.set_items(static_cast<int32_t>(choices.items));
  report.set_baseline_accuracy(choices.baseline_accuracy);
  report.set_accuracy(choices.accuracy);
  report.set_accuracy_delta(choices.delta);
  report.set_ci95_low(choices.ci_low);
  report.set_ci95_high(choices.ci_high);
  report.set_mcnemar_p(choices.mcnemar_p);
  report.set_flip_rate(choices.flip_rate);
  report.set_mean_kl_choice(choices.mean_kl_choice);
  report.set_letter_mass(choices.letter_mass);
  report.set_mean_kl_text(result.kl_text.mean);
  AddSubjects(result.subjects, report);
  report.set_kl_text_p95(result.kl_text.p95);
  report.set_baseline_cross_entropy(result.baseline_cross_entropy);
  report.set_cross_entropy_delta(result.cross_entropy_delta);
  report.set_baseline_letter_mass(choices.baseline_letter_mass);
  report.set_right_to_wrong(static_cast<int32_t>(choices.right_to_wrong));
  report.set_wrong_to_right(static_cast<int32_t>(choices.wrong_to_right));
  report.set_choice_change_rate(choices.choice_change_rate);
  report.set_mean_kl_vocabulary(result.mean_kl_vocabulary);
  report.set_gold_probability_delta(choices.gold_probability_delta);
  report.set_text_tokens(static_cast<int32_t>(result.text_tokens));
  report.set_minimum_detectable_delta(choices.minimum_detectable_delta);
  report.set_at_chance(choices.at_chance);
  for (const std::string& warning : result.warnings) report.add_warnings(warning);
  return report;
}

// Metadata of the operation of `job`.
std::string Metadata(const JobRecord& job, const JobProgressSnapshot& snapshot) {
  const JobProgress& progress = snapshot.progress;
  v1::EvaluateDriftMetadata metadata;
  metadata.set_drift_report(job.target);
  switch (progress.phase) {
    case JobPhase::kQueued:
      metadata.set_phase(v1::EvaluateDriftMetadata::PHASE_QUEUED);
      break;
    case JobPhase::kPersisting:
      metadata.set_phase(v1::EvaluateDriftMetadata::PHASE_PERSISTING);
      break;
    default:
      metadata.set_phase(v1::EvaluateDriftMetadata::PHASE_SCORING);
      break;
  }
  metadata.set_completed_items(static_cast<int32_t>(progress.completed));
  metadata.set_total_items(static_cast<int32_t>(progress.total));
  metadata.set_completed_percent(static_cast<float>(100 * progress.fraction));
  if (snapshot.eta < absl::InfiniteDuration()) *metadata.mutable_eta() = ToProto(snapshot.eta);
  *metadata.mutable_create_time() = ToProto(snapshot.create_time);
  *metadata.mutable_update_time() = ToProto(snapshot.update_time);
  for (const auto& [item, reason] : progress.partial_failures) {
    google::rpc::Status& failure = *metadata.add_partial_failures();
    failure.set_code(static_cast<int32_t>(absl::StatusCode::kInvalidArgument));
    failure.set_message(absl::StrCat(item, ": ", reason));
  }
  return metadata.SerializeAsString();
}

}  // namespace

JobManager::Runner DriftRunner::Runner() {
  return {.run = [this](const JobRecord& job, JobContext& context) { return Run(job, context); },
          .fail = [this](const JobRecord& job, const absl::Status& error) { return Fail(job, error); },
          .metadata = Metadata};
}

absl::StatusOr<v1::DriftReport> DriftRunner::Evaluate(const v1::EvaluateDriftRequest& request, const SteeringPlan& plan,
                                                      const std::string& name, JobContext& job) const {
  const absl::Time start = parts_.clock.Now();
  TRIMTAB_ASSIGN_OR_RETURN(DriftCall call, ParseEvaluateDriftRequest(request));
  if (call.suite.empty() && !parts_.suites.names().empty()) call.suite = parts_.suites.names().front();
  const QuestionBank* const bank = parts_.suites.Find(call.suite);
  if (bank == nullptr) return NotFoundError(kResourceNotFound, "suite", call.suite);
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<ServedModel> model, parts_.models.Find(call.model));
  const DriftOptions options{
      .max_items = call.max_items, .seed = call.seed, .shots = call.shots, .max_text_tokens = call.max_text_tokens};
  TRIMTAB_ASSIGN_OR_RETURN(std::vector<TokenId> text_start, model->Encode({}));
  const DriftEncoder encoder{
      .raw_prompt = [&model](std::string_view prompt) { return model->Encode({.raw = std::string(prompt)}); },
      .continuation = [&model](std::string_view text) { return model->EncodeContinuation(text); },
      .max_tokens = model->Describe().context_length(),
      .text_start = std::move(text_start)};
  TRIMTAB_ASSIGN_OR_RETURN(const DriftResult result, EvaluateDrift(*bank, parts_.suites.neutral_text(), plan, options,
                                                                   encoder, model->scorer(), job));
  v1::DriftReport report = ReportOf(result);
  report.set_name(name);
  *report.mutable_steering() = request.steering();
  report.set_suite(call.suite);
  report.set_shots(static_cast<int32_t>(call.shots));
  report.set_seed(call.seed);
  report.set_suite_digest(bank->digest());
  report.set_model_fingerprint(model->fingerprint());
  *report.mutable_create_time() = ToProto(parts_.clock.Now());
  *report.mutable_run_time() = ToProto(parts_.clock.Now() - start);
  return report;
}

absl::Status DriftRunner::Run(const JobRecord& job, JobContext& context) const {
  v1::EvaluateDriftRequest request;
  if (!request.ParseFromString(job.request)) return absl::DataLossError("the stored request is damaged");
  TRIMTAB_ASSIGN_OR_RETURN(const DriftCall call, ParseEvaluateDriftRequest(request));
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<ServedModel> model, parts_.models.Find(call.model));
  TRIMTAB_ASSIGN_OR_RETURN(const SteeringPlan plan, ResolvePlan(parts_.vectors, model->fingerprint(), call.steering));
  PartOfJob whole(context, "", 0, 1);
  TRIMTAB_ASSIGN_OR_RETURN(const v1::DriftReport report, Evaluate(request, plan, job.target, whole));
  JobProgress last = whole.last();
  last.phase = JobPhase::kPersisting;
  context.Report(last);
  JobRecord done = job;
  done.state = JobRecord::State::kSucceeded;
  done.end_time = parts_.clock.Now();
  done.metadata.clear();  // the last progress stands
  google::protobuf::Any result;
  result.PackFrom(report);
  done.result = result.SerializeAsString();
  // A worker at idle priority must not hold the registry's lock.
  TRIMTAB_RETURN_IF_ERROR(parts_.jobs.RunAtNormalPriority([&] {
    return parts_.registry.CommitDrift(
        {.name = job.target, .report = report.SerializeAsString(), .create_time = done.end_time}, done);
  }));
  LogInfo("drift measured", {{"report", job.target}});
  if (parts_.on_drift) parts_.on_drift(report);
  return absl::OkStatus();
}

absl::Status DriftRunner::Fail(const JobRecord& job, const absl::Status& error) const {
  LogWarning(
      "drift evaluation ended without a report",
      {{"operation", job.name}, {"reason", GetErrorDetail(error).reason}, {"error", std::string(error.message())}});
  JobRecord failed = job;
  failed.state = absl::IsCancelled(error) ? JobRecord::State::kCancelled : JobRecord::State::kFailed;
  failed.error = ToRpcStatus(error).SerializeAsString();
  failed.end_time = parts_.clock.Now();
  v1::EvaluateDriftRequest request;
  if (parts_.on_error && !absl::IsCancelled(error) && request.ParseFromString(job.request)) parts_.on_error(request);
  return parts_.registry.UpdateJob(failed);
}

}  // namespace trimtab
