#include "server/fit_runner.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "models/kernels/thread_team.h"
#include "models/tokenizer/utf8.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/resource_name.h"
#include "server/base/status_macros.h"
#include "server/part_of_job.h"
#include "server/rpc/field_checker.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/to_proto.h"
#include "server/rpc/validate.h"
#include "steering/model_probe.h"
#include "trimtab/v1/objective.pb.h"

namespace trimtab {
namespace {

// Neutral text that a fit spends on each setting it tries.
constexpr int64_t kNeutralTokens = 768;
constexpr int64_t kNeutralChunk = 128;
// Share of a job's time that the drift evaluation of a registration takes, about.
constexpr double kDriftShare = 0.1;
constexpr char kBegun[] = "begun";  // partial result of every run

// The report that a fit job makes has the job's own id.
std::string DriftReportOf(const JobRecord& job) {
  const std::optional<ObjectiveId> objective = ParseObjectiveName(job.target);
  const std::optional<std::string> operation = ParseOperationName(job.name);
  if (!objective || !operation) return "";
  return DriftReportId{.model = objective->model, .report = *operation}.name();
}

bool WantsDrift(const JobRecord& job) {
  v1::RegisterObjectiveRequest registration;
  v1::RefitObjectiveRequest refit;
  return job.kind == kRefitJob ? refit.ParseFromString(job.request) && refit.evaluate_drift()
                               : registration.ParseFromString(job.request) && registration.evaluate_drift();
}

std::string Metadata(const JobRecord& job, const JobProgressSnapshot& snapshot) {
  const JobProgress& progress = snapshot.progress;
  v1::RegisterObjectiveMetadata metadata;
  metadata.set_objective(job.target);
  // JobPhase has the values of the API.
  metadata.set_phase(static_cast<v1::RegisterObjectiveMetadata::Phase>(progress.phase));
  // What drift counts is not pairs.
  if (progress.phase != JobPhase::kDrift) {
    metadata.set_completed_pairs(static_cast<int32_t>(progress.completed));
    metadata.set_total_pairs(static_cast<int32_t>(progress.total));
  }
  metadata.set_completed_percent(static_cast<float>(100 * progress.fraction));
  if (snapshot.eta < absl::InfiniteDuration()) *metadata.mutable_eta() = ToProto(snapshot.eta);
  *metadata.mutable_create_time() = ToProto(snapshot.create_time);
  *metadata.mutable_update_time() = ToProto(snapshot.update_time);
  for (const auto& [item, reason] : progress.partial_failures) {
    google::rpc::Status& failure = *metadata.add_partial_failures();
    failure.set_code(static_cast<int32_t>(absl::StatusCode::kInvalidArgument));
    failure.set_message(absl::StrCat(item, ": ", reason));
  }
  if (WantsDrift(job)) metadata.set_drift_report(DriftReportOf(job));
  return metadata.SerializeAsString();
}

}  // namespace

v1::EffectSummary ToProto(const EffectSummary& effect, float strength) {
  v1::EffectSummary proto;
  proto.set_accuracy_before(effect.accuracy_before);
  proto.set_accuracy_after(effect.accuracy_after);
  proto.set_margin_before(effect.margin_before);
  proto.set_anti_steerable_share(effect.anti_steerable_share);
  proto.set_margin_gain(effect.margin_gain);
  proto.set_ci95((effect.ci_high - effect.ci_low) / 2);
  proto.set_ci95_low(effect.ci_low);
  proto.set_ci95_high(effect.ci_high);
  proto.set_pair_count(static_cast<int32_t>(effect.pairs));
  proto.set_strength(strength);
  return proto;
}

v1::Attribution ToProto(const PairAttribution& attribution) {
  v1::Attribution proto;
  proto.set_pair_index(static_cast<int32_t>(attribution.pair_index));
  for (const TokenAttribution& token : attribution.tokens) {
    v1::TokenAttribution& entry = *proto.add_tokens();
    entry.set_text(ReplaceInvalidUtf8(token.text));
    entry.set_id(token.token_id);
    entry.set_position(token.position);
    entry.set_score(token.score);
    entry.set_candidate(token.candidate);
    entry.set_side(token.side > 0   ? v1::TokenAttribution::SIDE_MASKED_POSITIVE
                   : token.side < 0 ? v1::TokenAttribution::SIDE_MASKED_NEGATIVE
                                    : v1::TokenAttribution::SIDE_NONE);
  }
  proto.set_objective_value(attribution.margin);
  proto.set_positive_masked_change(attribution.margin_masked_positive - attribution.margin);
  proto.set_negative_masked_change(attribution.margin_masked_negative - attribution.margin);
  proto.set_completeness_error(attribution.completeness_error);
  proto.set_low_confidence(attribution.low_confidence);
  proto.set_method(attribution.attribution);
  proto.set_used(attribution.used);
  return proto;
}

v1::RevisionSummary ToSummary(const FitResult& result, absl::Duration fit_time) {
  const SteeringVectorSpec& vector = result.vector->spec();
  const FitReport& report = result.report;
  v1::RevisionSummary summary;
  for (const LayerDirection& layer : vector.layers) {
    v1::LayerSummary& entry = *summary.add_layers();
    entry.set_layer(static_cast<int32_t>(layer.layer));
    entry.set_site(static_cast<v1::Site>(vector.site));
    entry.set_explained_variance(layer.explained_variance);
    entry.set_cosine_to_mean(layer.cosine_to_mean);
    entry.set_cosine_to_margin_gradient(layer.cosine_to_margin_gradient);
    entry.set_bootstrap_stability(layer.bootstrap_stability);
    entry.set_weight(layer.weight);
  }
  summary.set_pair_count(static_cast<int32_t>(report.pair_count));
  summary.set_median_completeness_error(report.median_completeness_error);
  summary.set_low_confidence_pairs(static_cast<int32_t>(report.low_confidence_pairs));
  if (report.validation.pairs > 0) {
    *summary.mutable_validation() = ToProto(report.validation, vector.default_strength);
  }
  if (report.held_out.pairs > 0) *summary.mutable_held_out() = ToProto(report.held_out, vector.default_strength);
  *summary.mutable_fit_time() = ToProto(fit_time);
  summary.set_recommended_strength(vector.default_strength);
  summary.set_max_strength(vector.max_strength);
  summary.set_kl_at_recommended(report.kl_at_default);
  summary.mutable_warnings()->Assign(report.warnings.begin(), report.warnings.end());
  if (report.random_directions > 0) {
    summary.mutable_random_control()->set_directions(static_cast<int32_t>(report.random_directions));
    summary.mutable_random_control()->set_mean_margin_gain(report.random_gain_mean);
    summary.mutable_random_control()->set_max_margin_gain(report.random_gain_max);
  }
  for (const StrengthPoint& point : report.search) {
    v1::StrengthPoint& entry = *summary.add_search();
    entry.set_layer(static_cast<int32_t>(point.layer));
    entry.set_strength(point.strength);
    entry.set_margin_gain(point.margin_gain);
    entry.set_kl_text(point.kl);
  }
  for (const MethodTrial& trial : report.trials) {
    v1::MethodTrial& entry = *summary.add_trials();
    entry.set_method(trial.method);
    entry.set_error(trial.error);
    if (!trial.error.empty()) continue;
    entry.set_layer(static_cast<int32_t>(trial.layer));
    entry.set_strength(trial.strength);
    *entry.mutable_validation() = ToProto(trial.validation, trial.strength);
    entry.set_kl_text(trial.kl);
    entry.set_efficiency(trial.efficiency);
    entry.set_chosen(trial.chosen);
  }
  summary.set_choice(report.choice);
  summary.set_model_fingerprint(vector.model_fingerprint);
  summary.set_apply_to(static_cast<v1::ApplyTo>(vector.apply_to));
  summary.set_objective_kind(report.objective);
  return summary;
}

absl::Status FitRunner::LoadRegistration(const JobRecord& job, Task& task) const {
  v1::RegisterObjectiveRequest request;
  if (!request.ParseFromString(job.request)) return absl::DataLossError("the stored registration is damaged");
  task.method = task.objective.method;
  task.method_config = task.objective.method_config;
  return absl::OkStatus();
}

absl::Status FitRunner::LoadRefit(const JobRecord& job, JobContext& context, Task& task) const {
  v1::RefitObjectiveRequest request;
  if (!request.ParseFromString(job.request)) return absl::DataLossError("the stored refit is damaged");
  task.method = request.method();
  if (request.has_method_config()) task.method_config = request.method_config().SerializeAsString();
  task.refit = RefitRecord{.keep_active = request.keep_active()};
  TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::string> pairs, context.LoadPartial(Registry::kRefitPairs));
  if (pairs) task.refit->pairs = *pairs;
  return absl::OkStatus();
}

absl::StatusOr<FitRunner::Task> FitRunner::Load(const JobRecord& job, JobContext& context) const {
  Task task;
  TRIMTAB_ASSIGN_OR_RETURN(task.objective, parts_.registry.GetObjective(job.target));
  if (!job.objective_uid.empty() && job.objective_uid != task.objective.uid) {
    return NotFoundError(kObjectiveNotFound, "objective with uid", job.objective_uid);  // another one of its name
  }
  TRIMTAB_RETURN_IF_ERROR(job.kind == kRefitJob ? LoadRefit(job, context, task) : LoadRegistration(job, task));
  const bool new_pairs = task.refit && !task.refit->pairs.empty();
  const std::optional<ObjectiveId> id = ParseObjectiveName(task.objective.name);
  v1::Objective stored;
  if (!id || !stored.ParseFromString(new_pairs ? task.refit->pairs : task.objective.pairs) ||
      !task.config.ParseFromString(task.method_config)) {
    return absl::DataLossError("the stored registration is damaged");
  }
  task.id = *id;
  task.with_drift = WantsDrift(job) && !parts_.suites.names().empty();
  FieldChecker checker;
  PairSet pairs = ParsePairs(checker, "objective", stored);
  TRIMTAB_RETURN_IF_ERROR(checker.status());
  task.pairs_hash = new_pairs ? PairsHash(pairs.pairs) : task.objective.pairs_hash;
  if (new_pairs) {
    task.refit->pair_count = static_cast<int64_t>(pairs.pairs.size());
    task.refit->held_out_count = static_cast<int64_t>(pairs.held_out.size());
  }
  task.input = {.pairs = std::move(pairs.pairs), .held_out_pairs = std::move(pairs.held_out)};
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<RevisionRecord> later,
                           parts_.registry.ListRevisions(task.objective.name, task.objective.active_revision, 1000));
  task.revision = later.empty() ? task.objective.active_revision + 1 : later.back().revision + 1;
  return task;
}

std::unique_ptr<ModelProbe> FitRunner::MakeProbe(std::shared_ptr<const LoadedModel> model) const {
  ProbeOptions options;
  options.neutral_text = ChunkText(*model->tokenizer, parts_.suites.neutral_text(), kNeutralChunk, kNeutralTokens);
  return std::make_unique<ModelProbe>(std::move(model), std::move(options));
}

absl::StatusOr<FitPreview> FitRunner::Preview(std::string_view model, const std::string& method,
                                              const google::protobuf::Any* config, const FitInput& input) const {
  TRIMTAB_ASSIGN_OR_RETURN(std::shared_ptr<const LoadedModel> loaded, parts_.find_model(model));
  TRIMTAB_ASSIGN_OR_RETURN(const std::unique_ptr<SteeringMethod> made, parts_.methods.Create(method, config));
  return made->Preview(input, *MakeProbe(std::move(loaded)));
}

absl::StatusOr<FitResult> FitRunner::Fit(const Task& task, JobContext& job, double& rows) const {
  TRIMTAB_ASSIGN_OR_RETURN(std::shared_ptr<const LoadedModel> model, parts_.find_model(task.id.model));
  TRIMTAB_ASSIGN_OR_RETURN(const std::unique_ptr<SteeringMethod> method,
                           parts_.methods.Create(task.method, task.method_config.empty() ? nullptr : &task.config));
  const std::unique_ptr<ModelProbe> probe = MakeProbe(std::move(model));
  const absl::StatusOr<FitPreview> preview = method->Preview(task.input, *probe);
  rows = preview.ok() ? preview->rows : 0;
  PartOfJob fitting(job, "fit/", 0, task.with_drift ? 1 - kDriftShare : 1);
  return method->Fit(task.input, *probe, fitting);
}

absl::StatusOr<v1::DriftReport> FitRunner::MeasureDrift(const Task& task, const FitResult& result,
                                                        const JobRecord& record, JobContext& job) const {
  const SteeringVectorSpec& spec = result.vector->spec();
  const SteeringPlan plan({{.vector = result.vector,
                            .objective = task.objective.name,
                            .revision = task.revision,
                            .strength = spec.default_strength,
                            .apply_to = spec.apply_to}});
  v1::EvaluateDriftRequest request;
  request.set_parent(task.id.model_name());
  v1::SteeringSelection& selection = *request.add_steering();
  selection.set_objective(RevisionId{.objective = task.id, .revision = task.revision}.name());
  selection.set_strength(spec.default_strength);
  selection.set_apply_to(static_cast<v1::ApplyTo>(spec.apply_to));
  PartOfJob measuring(job, "drift/", 1 - kDriftShare, 1);
  return parts_.drift.Evaluate(request, plan, DriftReportOf(record), measuring);
}

absl::Status FitRunner::Run(const JobRecord& job, JobContext& context) const {
  const absl::Time start = parts_.clock.Now();
  TRIMTAB_ASSIGN_OR_RETURN(const Task task, Load(job, context));
  ThreadTeam team(ParallelThreads());  // its threads have this one's priority
  const ScopedTeam scope(&team);
  PartOfJob whole(context, "", 0, 1);
  // A run that does only the rest does not tell how long a fit takes.
  TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::string> resumed, context.LoadPartial(kBegun));
  if (!resumed) TRIMTAB_RETURN_IF_ERROR(context.SavePartial(kBegun, "yes"));
  double rows = 0;
  TRIMTAB_ASSIGN_OR_RETURN(const FitResult result, Fit(task, whole, rows));
  v1::RevisionSummary summary = ToSummary(result, parts_.clock.Now() - start);
  summary.set_method(task.method);
  summary.set_pairs_digest(task.pairs_hash);
  if (!task.method_config.empty()) *summary.mutable_method_config() = task.config;
  if (!resumed) summary.set_fit_rows(rows);

  std::optional<v1::DriftReport> drift;
  if (task.with_drift) {
    absl::StatusOr<v1::DriftReport> measured = MeasureDrift(task, result, job, whole);
    if (absl::IsCancelled(measured.status()) || absl::IsUnavailable(measured.status())) return measured.status();
    if (measured.ok()) {
      drift = *std::move(measured);
    } else {
      // The vectors are good all the same.
      summary.add_warnings(absl::StrCat("drift could not be measured: ", std::string(measured.status().message())));
    }
  }
  TRIMTAB_RETURN_IF_ERROR(context.Checkpoint());
  JobProgress last = whole.last();
  if (!drift) last.phase = JobPhase::kPersisting;
  last.fraction = 1;
  context.Report(last);
  // A worker at idle priority must not hold the locks that serving waits for.
  TRIMTAB_RETURN_IF_ERROR(parts_.jobs.RunAtNormalPriority([&] { return Commit(task, result, summary, drift, job); }));
  LogInfo("objective fitted", {{"objective", task.objective.name}, {"digest", result.vector->digest()}});
  if (drift && parts_.on_drift) parts_.on_drift(*drift);
  return absl::OkStatus();
}

absl::Status FitRunner::Commit(const Task& task, const FitResult& result, const v1::RevisionSummary& summary,
                               const std::optional<v1::DriftReport>& drift, const JobRecord& job) const {
  JobRecord done = job;
  done.state = JobRecord::State::kSucceeded;
  done.end_time = parts_.clock.Now();
  done.metadata.clear();   // the last progress stands
  v1::Objective response;  // OperationsService shows the stored objective in its place
  response.set_name(task.objective.name);
  google::protobuf::Any any;
  any.PackFrom(response);
  done.result = any.SerializeAsString();
  std::optional<DriftRecord> drift_record;
  if (drift) {
    drift_record = {.name = drift->name(), .report = drift->SerializeAsString(), .create_time = done.end_time};
  }
  std::vector<AttributionRecord> attributions;
  for (const PairAttribution& attribution : result.report.attributions) {
    attributions.push_back({attribution.pair_index, ToProto(attribution).SerializeAsString()});
  }
  TRIMTAB_RETURN_IF_ERROR(parts_.registry
                              .CommitFit(task.objective.uid,
                                         {.objective = task.objective.name,
                                          .digest = result.vector->digest(),
                                          .model_fingerprint = result.vector->spec().model_fingerprint,
                                          .method = task.method,
                                          .method_config = task.method_config,
                                          .pairs_hash = task.pairs_hash,
                                          .vector = result.vector->Serialize(),
                                          .summary = summary.SerializeAsString(),
                                          .create_time = done.end_time},
                                         attributions, done, drift_record, task.refit)
                              .status());
  return parts_.publisher.Publish(task.objective.name);
}

absl::Status FitRunner::Fail(const JobRecord& job, const absl::Status& error) const {
  LogWarning(
      "fit ended without a revision",
      {{"objective", job.target}, {"reason", GetErrorDetail(error).reason}, {"error", std::string(error.message())}});
  JobRecord failed = job;
  failed.state = absl::IsCancelled(error) ? JobRecord::State::kCancelled : JobRecord::State::kFailed;
  failed.error = ToRpcStatus(error).SerializeAsString();
  failed.end_time = parts_.clock.Now();
  TRIMTAB_ASSIGN_OR_RETURN(const JobRecord stored, parts_.registry.GetJob(job.name));
  const absl::StatusOr<ObjectiveRecord> objective = parts_.registry.GetObjective(job.target);
  const std::string uid = objective.ok() && objective->uid == stored.objective_uid ? objective->uid : "";
  TRIMTAB_RETURN_IF_ERROR(parts_.registry.CommitFitFailure(uid, failed));
  return uid.empty() ? absl::OkStatus() : parts_.publisher.Publish(job.target);
}

JobManager::Runner FitRunner::Runner() {
  return {.run = [this](const JobRecord& job, JobContext& context) { return Run(job, context); },
          .fail = [this](const JobRecord& job, const absl::Status& error) { return Fail(job, error); },
          .metadata = Metadata};
}

}  // namespace trimtab
